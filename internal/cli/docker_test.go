package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/isle-engine/isle/internal/config"
	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/engine"
	"github.com/isle-engine/isle/internal/image"
	"github.com/isle-engine/isle/internal/testenv"
)

// The tests of this file run Docker's own client against a small server in this
// process: what it sends, prints and refuses is what ours must.

// dockerAPI is that server.
type dockerAPI struct {
	*httptest.Server
	mu      sync.Mutex
	created map[string]any // body of the last create, by the label "case"
	answers map[string]any // path to JSON
}

func newDockerAPI(t *testing.T) *dockerAPI {
	testenv.Need(t, testenv.Docker)
	d := &dockerAPI{created: map[string]any{}, answers: map[string]any{}}
	version := regexp.MustCompile(`^/v1\.\d+`)
	d.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Api-Version", "1.50")
		w.Header().Set("Ostype", "linux")
		path := version.ReplaceAllString(r.URL.Path, "")
		d.mu.Lock()
		defer d.mu.Unlock()
		switch answer := d.answers[path]; {
		case path == "/_ping":
		case path == "/containers/create":
			var body map[string]any
			if err := json.NewDecoder(r.Body).Decode(&body); err != nil {
				http.Error(w, err.Error(), http.StatusBadRequest)
				return
			}
			d.created[r.URL.Query().Get("platform")] = body
			w.WriteHeader(http.StatusCreated)
			_, _ = io.WriteString(w, `{"Id":"`+strings.Repeat("a", 64)+`","Warnings":[]}`)
		case answer != nil:
			_ = json.NewEncoder(w).Encode(answer)
		default:
			w.WriteHeader(http.StatusNotFound)
			_, _ = io.WriteString(w, `{"message":"No such object"}`)
		}
	}))
	t.Cleanup(d.Close)
	return d
}

// docker runs the client.
func (d *dockerAPI) docker(t *testing.T, dir string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "docker", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "DOCKER_HOST="+strings.Replace(d.URL, "http:", "tcp:", 1), "DOCKER_CONFIG="+dir, "TZ=UTC")
	var out, errb bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errb
	err := cmd.Run()
	if err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return result{cmd.ProcessState.ExitCode(), out.String(), errb.String()}
}

// flagCases are the flags of `create`, one command line each. What follows "#"
// is our own error where it has a reason to differ from Docker's client, mostly
// because there the daemon finds the fault.
var flagCases = []string{
	"", "-m 64 # minimum memory limit allowed is 6MB", "-m 1.5g", "-m 10240kib", "-m 10kbb", "-m x", "-m -5", "-m64m", "-m=64m", "--memory 64mb --memory-swap -1", "--memory-swap -2", "-m 64m --memory-reservation 32m",
	"--memory-swappiness 200", "--memory-swappiness 60", "--memory-swappiness abc", "--kernel-memory x",
	"--cpus 0.5", "--cpus 2", "--cpus 0.0000000001", "--cpus x", "--cpu-shares 512 --cpuset-cpus 0-1 --cpuset-mems 0", "--cpu-period 50000 --cpu-quota 25000", "--cpu-rt-period 5 --cpu-rt-runtime 6", "-c 7",
	"--blkio-weight 300", "--blkio-weight 100000", "--blkio-weight-device /dev/sda:100", "--blkio-weight-device x:5", "--blkio-weight-device /dev/sda:5",
	"--device-read-bps /dev/sda:1m --device-write-bps /dev/sda:2kb", "--device-read-iops /dev/sda:10 --device-write-iops /dev/sda:20", "--device-read-bps x", "--device-read-bps /dev/sda:m", "--device-read-iops /dev/sda:x",
	"--pids-limit 100", "--pids-limit -1", "--oom-score-adj 500", "--oom-kill-disable", "--shm-size 1g", "--shm-size x", "--cgroup-parent /x",
	"--ulimit nofile=1:2 --ulimit core=-1", "--ulimit nofile=5:4", "--ulimit nofile=4:-1", "--ulimit foo", "--ulimit x=1", "--ulimit nofile=1:2:3", "--ulimit nofile=1 --ulimit nofile=2", "--ulimit nofile=a # invalid argument \"nofile=a\" for \"--ulimit\" flag: invalid ulimit value: \"a\"",
	"--ulimit nofile=-1:4 # invalid argument \"nofile=-1:4\" for \"--ulimit\" flag: ulimit soft limit must be less than or equal to hard limit: unlimited > 4",
	"-e A=b -e NOPE_UNSET -e C=", "-e =x", "--env-file e1", "--env-file e1 -e A=z", "--env-file e2", "--env-file e3", "--env-file e4", "--env-file nope",
	"-l a=b -l c -l a=z", "-l =x", "--label-file lf -l l1=z",
	"-h web --domainname d", "-u 5:6", "-w /x", "-t", "-i", "-it", "-a stdin", "-a stdout -i", "-a STDERR", "-a foo", "--entrypoint x", "--init", "--init=false", "--init=maybe", "--privileged", "--read-only", "--rm", "--restart always --rm",
	"--restart always", "--restart on-failure:3", "--restart on-failure:x", "--restart :3", "--restart no --rm", "--restart foo # invalid restart policy: unknown policy 'foo'; use one of 'no', 'always', 'on-failure', or 'unless-stopped'",
	"--stop-signal TERM --stop-timeout 5", "--stop-timeout x", "--stop-signal foo # invalid signal: foo",
	"--cap-add net_admin --cap-drop ALL", "--cap-add CAP_NET_RAW", "--cap-add foo # invalid CapAdd: unknown capability: \"CAP_FOO\"", "--group-add x --group-add 5",
	"--security-opt foo # invalid --security-opt: \"foo\"", "--security-opt seccomp=sec.json", "--security-opt seccomp=bad.json", "--security-opt seccomp=nope.json", "--security-opt seccomp=unconfined --security-opt apparmor=x --security-opt label=disable",
	"--security-opt no-new-privileges=true", "--security-opt foo=bar # invalid --security-opt: \"foo=bar\"",
	"--device /dev/null:/dev/x:r", "--device /dev/null", "--device /dev/null:rw", "--device /dev/null:/x:abc", "--device dev/null", "--device a:b:c:d", "--device vendor.com/gpu=all", "--device-cgroup-rule foo", "--device-cgroup-rule c~1:*~rw",
	"--gpus all", "--gpus 2", "--gpus device=0", "--gpus foo", "--gpus driver=x,count=2,options=a=b", "--gpus \"device=0,1\",capabilities=utility",
	"--log-driver none --log-opt a=b", "--log-driver json-file --log-opt max-size=1m", "--storage-opt size=1g", "--storage-opt a",
	"--add-host a", "--add-host a:b", "--add-host a:1.2.3.4", "--add-host a:::1", "--add-host a=[::1]", "--add-host a:host-gateway", "--add-host :1.2.3.4",
	"--dns 1.1.1.1 --dns-option x --dns-search a.b", "--dns foo", "--dns-search a_b", "--dns-search .", "--dns-search a..b", "--mac-address foo",
	"--link a --link b:c", "--link a:b:c", "--volumes-from x:ro", "--sysctl net.ipv4.ip_forward=1 --sysctl kernel.shmmax=5", "--sysctl a=b", "--sysctl a", "--annotation a=b",
	"--pid host", "--pid foo", "--pid container:", "--pid container:x", "--uts host", "--uts foo", "--userns host", "--userns foo", "--cgroupns host", "--cgroupns foo", "--ipc shareable", "--ipc foo # invalid IPC mode: foo",
	"--health-cmd x --health-interval 5s --health-retries 3 --health-timeout 1m --health-start-period 2s --health-start-interval 1s", "--health-cmd x --no-healthcheck", "--no-healthcheck", "--health-interval -5s", "--health-retries -1", "--health-interval 5", "--health-interval 5s",
	"-p 80", "-p 8080:80 -p 127.0.0.1:53:53/udp", "-p [::1]:80:90", "-p 80-82:90-92", "-p 80-82:90", "-p 80-81:90-93", "-p ::80", "-p 127.0.0.1::80", "-p 80:", "-p 99999:80", "-p 80/foo", "-p 300.1.1.1:80:80", "-p host:80:80", "-p 80:80/SCTP", "-p 90-80:80", "-p foo", "-p target=80,published=81", "-P",
	"--expose 80-82/udp --expose 443", "--expose 80:80", "--expose x # invalid range format for --expose: x",
	"-v /a:/b", "-v /a:/b:ro,z", "-v ./x:/y", "-v .:/y:ro", "-v vol:/z", "-v /anon", "-v :/b", "-v /a:/b:", "-v /a:", "-v /a:/b:foo # invalid volume specification: '/a:/b:foo': invalid mode: foo",
	"-v x # invalid volume specification: 'x': invalid mount path: 'x' mount path must be absolute", "-v / # invalid volume specification: '/': destination can't be '/'",
	"--tmpfs /run --tmpfs /tmp:size=64m,mode=1770", "--tmpfs /run:foo # invalid tmpfs option \"foo\"",
	"--mount type=bind,src=/a,dst=/b", "--mount type=bind,src=/a,dst=/b,readonly", "--mount type=bind,src=/a,dst=/b,ro=1,bind-propagation=rslave", "--mount type=bind,src=./x,dst=/b", "--mount type=tmpfs,dst=/b,tmpfs-size=1m,tmpfs-mode=1770",
	"--mount src=v,dst=/x", "--mount type=volume,src=v,dst=/b,volume-nocopy=true,volume-driver=d,volume-opt=a=b,volume-label=x=y,volume-subpath=s", "--mount type=bind,dst=/b,src=/x,bind-recursive=readonly", "--mount type=bind,dst=/b,src=/x,bind-recursive=readonly,readonly",
	"--mount type=bind,dst=/b,src=/x,bind-recursive=readonly,readonly,bind-propagation=rprivate", "--mount type=bind,dst=/b,src=/x,bind-recursive=writable,readonly", "--mount type=bind,dst=/b,src=/x,bind-recursive=disabled", "--mount type=bind,dst=/b,src=/x,bind-recursive=foo",
	"--mount type=bind", "--mount foo", "--mount type=bind,src=/a,foo=b,dst=/c", "--mount type=bind,src=/a,dst=/b,ro=maybe", "--mount type=tmpfs,dst=/b,tmpfs-size=x", "--mount type=tmpfs,dst=/b,tmpfs-mode=x", "--mount type=volume,dst=/b,bind-propagation=shared",
	"--mount type=bind,dst=/b,src=/x,tmpfs-size=1", "--mount type=bind,dst=/b,src=/x,volume-nocopy", "--mount TYPE=bind,Source=/x,Target=/y,ReadOnly", "--mount \"type=bind\",\"src=/a,b\",dst=/c", "--mount type=image,src=alpine,dst=/b,image-subpath=x", "--mount type=bind,src=/a,dst=/b,",
	"--mount type=foo,dst=/x # invalid argument \"type=foo,dst=/x\" for \"--mount\" flag: mount type unknown: \"foo\"",
	"--net host", "--network container:x", "--network foo --ip 1.2.3.4 --network-alias x --link a:b", "--network name=foo,alias=a,ip=1.2.3.4,driver-opt=a=b,gw-priority=4", "--network none --network foo", "--network foo --network foo", "--network name=foo,bar=x", "--network alias=x", "--network host --network-alias x",
	"--pull foo", "--pull never", "--runtime foo", "--foo", "-Z", "--name=",
	"--link-local-ip 169.254.1.1 --network foo", "--volume-driver local -v vol:/z", "--ip6 2001:db8::1 --network foo",
}

func TestFlagsLikeDocker(t *testing.T) {
	d := newDockerAPI(t)
	dir := t.TempDir()
	for name, content := range map[string]string{
		"e1": "#c\nA=1\n  B=2\nHOME\nNOPE_UNSET\nC=x y\n\nD=\n", "e2": "A B=1\n", "e3": "=x\n", "e4": "\xff=1\n", "lf": "l1=v\nl2\n",
		"sec.json": "{\"defaultAction\": \"SCMP_ACT_ALLOW\"}", "bad.json": "{",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Chdir(dir)
	base := shape(t, nil)
	type pair struct {
		ours   map[string]any
		err    string
		theirs result
		body   any
	}
	// Our side needs the working directory; theirs runs several at a time.
	pairs := make([]pair, len(flagCases))
	var wg sync.WaitGroup
	slots := make(chan struct{}, 4)
	for i, c := range flagCases {
		flags, _, _ := strings.Cut(c, " # ")
		var args []string
		for f := range strings.FieldsSeq(flags) {
			args = append(args, strings.ReplaceAll(f, "~", " "))
		}
		p := &pairs[i]
		p.ours, p.err = parsed(t, base, args)
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			key := fmt.Sprintf("linux/amd64/%d", i)
			p.theirs = d.docker(t, dir, append(append([]string{"create", "--platform", key}, args...), "alpine", "echo", "hi")...)
			d.mu.Lock()
			defer d.mu.Unlock()
			p.body = d.created[key]
		})
	}
	wg.Wait()
	theirBase, ok := pairs[0].body.(map[string]any)
	if !ok {
		t.Fatalf("docker create: %+v", pairs[0].theirs)
	}
	for i, c := range flagCases {
		_, differs, _ := strings.Cut(c, " # ")
		p := pairs[i]
		theirs := firstLine(p.theirs.err)
		if differs != "" {
			theirs = differs
		}
		if (p.err != "") != (theirs != "") || p.err != theirs {
			t.Errorf("create %s:\n  our error %q\nDocker's    %q", c, p.err, theirs)
			continue
		}
		if p.err != "" {
			continue
		}
		body, ok := p.body.(map[string]any)
		if !ok {
			t.Errorf("create %s: Docker sent nothing: %+v", c, p.theirs)
			continue
		}
		sortEnv(body) // the client merges it through a map
		sortEnv(p.ours)
		if diff := cmp.Diff(delta(body, theirBase), p.ours); diff != "" {
			t.Errorf("create %s (-Docker +isle):\n%s", c, diff)
		}
	}
}

// sortEnv puts a create body's environment in order.
func sortEnv(body map[string]any) {
	if env, ok := body["Env"].([]any); ok {
		slices.SortFunc(env, func(a, b any) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) })
	}
}

func firstLine(s string) string {
	s, _, _ = strings.Cut(strings.TrimPrefix(s, "docker: "), "\n")
	return s
}

// shape is our inspect JSON as Docker's create body: Config, with HostConfig in it.
func shape(t *testing.T, cfg *container.Config) map[string]any {
	t.Helper()
	if cfg == nil {
		cfg = &container.Config{Image: "alpine", Cmd: []string{"echo", "hi"}, Attach: []string{"stdout", "stderr"}}
	}
	c := &engine.Container{}
	c.Config = *cfg
	j := inspectContainer(c, config.Env{}, false)
	b, err := json.Marshal(j.Config)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]any{}
	if err := json.Unmarshal(b, &out); err != nil {
		t.Fatal(err)
	}
	if b, err = json.Marshal(j.HostConfig); err != nil {
		t.Fatal(err)
	}
	var host map[string]any
	if err := json.Unmarshal(b, &host); err != nil {
		t.Fatal(err)
	}
	out["HostConfig"] = host
	return out
}

// parsed runs our flags and returns what they changed, or the error.
func parsed(t *testing.T, base map[string]any, args []string) (map[string]any, string) {
	t.Helper()
	c := &call{app: &app{}, cmd: &command{}}
	var o containerFlags
	c.flags = o.flags()
	rest, err := parseFlags(c.flags, append(args, "alpine", "echo", "hi"), false)
	if err != nil {
		return nil, err.Error()
	}
	if len(rest) < 3 {
		return nil, "'docker create' requires at least 1 argument"
	}
	cfg, err := o.config(rest)
	if err != nil {
		return nil, err.Error()
	}
	cfg.Attach = attached(cfg)
	return delta(shape(t, cfg), base), ""
}

// delta keeps what differs from base, and leaves out what cannot be compared.
func delta(m, base map[string]any) map[string]any {
	out := map[string]any{}
	for k, v := range m {
		switch k {
		case "NetworkingConfig", "MaskedPaths", "ReadonlyPaths", "MacAddress", "Hostname" + "x":
			continue
		}
		if b, ok := base[k].(map[string]any); ok && k == "HostConfig" {
			host, _ := v.(map[string]any)
			if d := delta(host, b); len(d) > 0 {
				out[k] = d
			}
			continue
		}
		if isZero(v) && isZero(base[k]) || reflect.DeepEqual(v, base[k]) {
			continue
		}
		out[k] = v
	}
	return out
}

func isZero(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case []any:
		return len(v) == 0
	case map[string]any:
		return len(v) == 0
	}
	return reflect.ValueOf(v).IsZero()
}

// TestListsLikeDocker prints the same containers and images with both clients.
func TestListsLikeDocker(t *testing.T) {
	d := newDockerAPI(t)
	dir := t.TempDir()
	t.Setenv("TZ", "UTC")
	local := time.Local
	time.Local = time.UTC
	t.Cleanup(func() { time.Local = local })
	now := time.Now().Truncate(time.Second)
	m := newMemory()
	m.all = nil
	add := func(id, name, img, cmd string, age time.Duration, f func(*engine.Container)) {
		c := &engine.Container{}
		c.ID, c.Config.Name, c.Config.Image, c.Created = strings.Repeat(id, 64), name, img, now.Add(-age)
		c.Config.Cmd = strings.Split(cmd, "|")
		f(c)
		m.all = append(m.all, c)
	}
	add("a", "old", "sha256:"+strings.Repeat("d", 64), "true", 80*24*time.Hour, func(c *engine.Container) {
		c.State.Status, c.State.ExitCode, c.State.FinishedAt = container.Exited, 137, now.Add(-3*24*time.Hour)
	})
	add("b", "new", "busybox@sha256:"+strings.Repeat("7", 64), "sh|-c|echo 'x y'; sleep 3", 3*time.Hour, func(c *engine.Container) { c.State.Status = container.Created })
	add("c", "web", "nginx", "/docker-entrypoint.sh|nginx|-g|daemon off;", 5*time.Minute, func(c *engine.Container) {
		c.State.Status, c.State.StartedAt = container.Running, now.Add(-5*time.Minute)
		c.Config.Labels = map[string]string{"a": "b", "com.example.some-key": "d"}
		c.Config.Publish = []string{"8080:80", "127.0.0.1:9000-9002:9000-9002", "53:53/udp"}
		c.Config.Expose = []string{"443-444", "8443", "77/udp"}
		c.Config.Mounts = []container.Mount{{Type: "volume", Target: "/y"}, {Type: "bind", Source: "/very/long/source/path", Target: "/z"}}
		c.Volumes = map[string]string{"/y": strings.Repeat("e", 64)}
		c.SizeRw, c.SizeRootFs = 1234, 5678901
	})
	add("e", "sick", "nginx:1", "nginx", 90*time.Second, func(c *engine.Container) {
		c.State.Status, c.State.StartedAt = container.Running, now.Add(-90*time.Second)
		c.State.Health = &container.Health{Status: "unhealthy"}
	})
	var theirs []map[string]any
	for _, c := range slices.Backward(m.all) {
		theirs = append(theirs, apiContainer(c, now))
	}
	d.answers["/containers/json"] = theirs
	// Docker shows the names of one image in no order, and no digest where there
	// is no tag: one name each is what can be compared.
	m.images[0].Tags = m.images[0].Tags[:1]
	m.images[1].Tags, m.images[1].Digests = []string{"reg.example.com:5000/a/b:1"}, []string{"reg.example.com:5000/a/b@sha256:" + strings.Repeat("3", 64)}
	var images []map[string]any
	for _, img := range m.images {
		images = append(images, apiImage(img))
	}
	d.answers["/images/json"] = images
	for _, args := range [][]string{
		{"ps", "-a"},
		{"ps", "-a", "--no-trunc"},
		{"ps", "-as"},
		{"ps", "-aq"},
		{"ps", "-aq", "--no-trunc"},
		{"ps", "-a", "--format", "json"},
		{"ps", "-a", "--format", "table"},
		{"ps", "-a", "--format", "{{.ID}} {{.Names}}"},
		{"ps", "-a", "--format", `{{.Names}}\t{{.Label "a"}}`},
		{"ps", "-a", "--format", "{{json .}}"},
		{"ps", "-a", "--format", "{{json .Ports}}"},
		{"ps", "-a", "--format", `table {{.ID}}\t{{.Names}}\t{{.Label "com.example.some-key"}}\t{{.Mounts}}\t{{.LocalVolumes}}\t{{.Networks}}\t{{.RunningFor}}\t{{.CreatedAt}}\t{{.State}}\t{{.Labels}}`},
		{"ps", "-a", "--format", "table {{upper .Names}} {{json .ID}}"},
		{"ps", "-a", "--format", "{{.Names}}\n"},
		{"ps", "-a", "--format", "table {{.Size}}"},
		{"ps", "-aq", "--format", "{{.Names}}"},
		{"ps", "-a", "--format", `{{pad .Names 2 3}}|{{truncate .Image 3}}|{{title .State}}|{{join (split .Labels ",") ";"}}`},
		{"ps", "-a", "--format", "{{if eq .State \"running\"}}up{{else}}down{{end}}"},
		{"container", "ls", "-a"},
		{"images"},
		{"images", "-q"},
		{"images", "--no-trunc"},
		{"images", "--digests"},
		{"images", "--digests", "--no-trunc", "-a"},
		{"image", "ls", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}"},
		{"images", "--format", "json"},
		{"images", "--format", `table {{.Repository}}\t{{.Digest}}\t{{.CreatedAt}}\t{{.Containers}}\t{{.SharedSize}}\t{{.UniqueSize}}\t{{.VirtualSize}}`},
		{"images", "--format", "{{.CreatedSince}} {{.Size}}"},
	} {
		want := d.docker(t, dir, args...)
		got := isle(t, m, "", args...)
		if got != want {
			t.Errorf("%q:\n%s", args, cmp.Diff(want, got, cmp.AllowUnexported(result{})))
		}
	}
}

// apiContainer is a container as Docker's daemon lists it.
func apiContainer(c *engine.Container, now time.Time) map[string]any {
	r := &psRow{c, false, now}
	var ports []map[string]any
	for _, p := range r.ports() {
		ports = append(ports, map[string]any{"IP": p.ip, "PrivatePort": p.private, "PublicPort": p.public, "Type": p.proto})
	}
	var mounts []map[string]any
	for _, mt := range c.Config.Mounts {
		mounts = append(mounts, map[string]any{"Type": mt.Type, "Name": c.Volumes[mt.Target], "Source": mt.Source, "Destination": mt.Target, "Driver": map[bool]string{true: "local"}[mt.Type == "volume"]})
	}
	nets := map[string]any{}
	for _, n := range networkNames(&c.Config) {
		nets[n] = map[string]any{}
	}
	return map[string]any{
		"Id": c.ID, "Names": []string{"/" + c.Config.Name}, "Image": c.Config.Image, "ImageID": "sha256:" + strings.Repeat("d", 64), "Command": joinCommand(c.Config.Cmd), "Created": c.Created.Unix(),
		"Ports": ports, "Labels": c.Config.Labels, "State": string(c.State.Status), "Status": statusText(&c.State, now), "HostConfig": map[string]any{"NetworkMode": "bridge"},
		"NetworkSettings": map[string]any{"Networks": nets}, "Mounts": mounts, "SizeRw": c.SizeRw, "SizeRootFs": c.SizeRootFs,
	}
}

func apiImage(img image.Image) map[string]any {
	return map[string]any{"Id": img.ID, "RepoTags": img.Tags, "RepoDigests": img.Digests, "Created": img.Created.Unix(), "Size": img.Size, "SharedSize": -1, "Containers": -1, "Labels": nil, "ParentId": ""}
}

var helpFlag = regexp.MustCompile(`(?m)^ {2}(?:-(\w), | {4})--([a-z0-9-]+)(?: (\S+))?`)

// TestHelpLikeDocker compares the flags of every command with those of Docker's.
func TestHelpLikeDocker(t *testing.T) {
	d := newDockerAPI(t)
	dir := t.TempDir()
	// Commands and flags that only isle has.
	more := map[string]bool{}
	own := map[string]bool{}
	for _, s := range readCompat(t) {
		own[s.paths[0]] = s.verdict == "isle only"
		for name, f := range s.flags {
			more[s.paths[0]+" --"+name] = f.verdict == "isle only"
		}
	}
	var wg sync.WaitGroup
	slots := make(chan struct{}, 4)
	for _, cmd := range commands() {
		if own[cmd.paths[0]] || cmd.paths[0] == "__complete" {
			continue
		}
		wg.Go(func() {
			slots <- struct{}{}
			defer func() { <-slots }()
			for _, path := range cmd.paths {
				words := append(strings.Fields(path), "--help")
				want := d.docker(t, dir, words...)
				got := isle(t, newMemory(), "", words...)
				if got.code != 0 || want.code != 0 {
					t.Errorf("%s --help: exit codes %d and %d", path, got.code, want.code)
					continue
				}
				ours, theirs := flagTable(got.out), flagTable(want.out)
				for name, spelled := range theirs {
					if ours[name] != spelled {
						t.Errorf("%s --%s: ours %q, Docker's %q", path, name, ours[name], spelled)
					}
				}
				for name := range ours {
					if _, ok := theirs[name]; !ok && !more[cmd.paths[0]+" --"+name] && name != "help" {
						t.Errorf("%s --%s: not in Docker", path, name)
					}
				}
				if a, b := aliases(got.out), strings.ReplaceAll(aliases(want.out), "docker", "isle"); a != b {
					t.Errorf("%s: aliases %q, Docker's %q", path, a, b)
				}
				usage, _, _ := strings.Cut(want.out, "\n")
				if u, _, _ := strings.Cut(got.out, "\n"); u != strings.ReplaceAll(usage, "docker", "isle") && cmd.paths[0] != "import" {
					t.Errorf("%s: usage %q, Docker's %q", path, u, usage)
				}
				for l := range strings.SplitSeq(got.out, "\n") {
					if len(l) > 80 && strings.HasPrefix(l, "  ") && !strings.Contains(got.out, "Aliases:\n"+l) {
						t.Errorf("%s: line of %d characters: %s", path, len(l), l)
					}
				}
			}
		})
	}
	wg.Wait()
}

func flagTable(help string) map[string]string {
	t := map[string]string{}
	for _, m := range helpFlag.FindAllStringSubmatch(help, -1) {
		if m[2] != "help" {
			t[m[2]] = strings.TrimSpace(m[1] + " " + m[3])
		}
	}
	return t
}

func aliases(help string) string {
	_, rest, ok := strings.Cut(help, "Aliases:\n  ")
	if !ok {
		return ""
	}
	line, _, _ := strings.Cut(rest, "\n")
	return line
}
