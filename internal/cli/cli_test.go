package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/engine"
)

// TestCommands runs command lines in the order given, on one engine each group.
func TestCommands(t *testing.T) {
	type step struct {
		args     string // split at blanks; _ stands for a blank
		code     int
		out, err string // exact, or with a leading ~ contained
	}
	id := func(n int) string { return strings.Repeat("0", 61) + []string{"abc", "abd", "abe"}[n] }
	for name, steps := range map[string][]step{
		"run in front": {
			{"run --rm alpine echo hi", 0, "hi\n", ""},
			{"run alpine exit 7", 7, "", ""},
			{"run alpine false", 1, "", ""},
			{"run -i alpine cat", 0, "input", ""},
			{"run alpine cat", 0, "", ""},
			{"run alpine nosuch", 127, "", "isle: exec \"nosuch\": executable file not found in $PATH\n"},
			{"run --name hog alpine oom", 137, "", "isle: container \"hog\": out of memory: killed at its limit of 64 MiB (peak 64 MiB); use --memory to raise it\n"},
			{"run alpine oom", 137, "", "~isle: container \"000000000000\": out of memory: killed at its limit of 64 MiB"},
			{"run alpine detach", 0, "", "read escape sequence\n"},
			{"run -it alpine sh", 1, "", "isle: the input device is not a TTY\n"},
			{"run --kernel-memory 5m alpine echo x", 0, "x\n", "WARNING: kernel memory limits are gone\n"},
			{"run nosuch", 125, "", "isle: No such image: nosuch\n"},
			{"run --name hog alpine echo x", 125, "", "~is already in use"},
			{"run --detach-keys ctrl-. alpine", 125, "", "~ctrl-."},
		},
		"run detached": {
			{"run -d --name web alpine sleep 5", 0, id(0) + "\n", ""},
			{"run -d -a stdout alpine", 125, "", "isle: conflicting options: cannot specify both --attach and --detach\n"},
			{"ps -q", 0, "000000000000\n", ""},
			{"ps -q --no-trunc", 0, id(0) + "\n", ""},
			{"rm web", 1, "", "isle: cannot remove container \"/web\": container is running\n"},
			{"rm nope", 1, "", "isle: No such container: nope\n"},
			{"rm -f nope", 0, "", "isle: No such container: nope\n"},
			{"stop -t 3 web nope", 1, "web\n", "isle: No such container: nope\n"},
			{"stop --time 3 -s INT web", 0, "web\n", ""},
			{"stop -s FOO web", 1, "", "isle: invalid signal: FOO\n"},
			{"kill web", 0, "web\n", ""},
			{"wait web", 0, "0\n", ""},
			{"exec web echo a b", 0, "a b\n", ""},
			{"exec web exit 3", 3, "", ""},
			{"exec web nosuch", 127, "", "~executable file not found"},
			{"exec nope ls", 1, "", "isle: No such container: nope\n"},
			{"exec web", 1, "", "isle: 'isle exec' requires at least 2 arguments\nSee 'isle exec --help'.\n"},
			{"exec -d web sleep", 0, "", ""},
			{"exec -t -i web sh", 1, "", "isle: the input device is not a TTY\n"},
			{"logs web", 0, "to stdout\n", "to stderr\n"},
			{"logs --since x web", 1, "", "isle: invalid value for \"since\": failed to parse value as time or duration: \"x\"\n"},
			{"attach web", 0, "", ""},
			{"rm -f web", 0, "web\n", ""},
			{"ps -aq", 0, "", ""},
		},
		"create and start": {
			{"create --name aa alpine echo hi", 0, id(0) + "\n", ""},
			{"create --name bb alpine exit 9", 0, id(1) + "\n", ""},
			{"start aa bb nope", 1, "aa\nbb\n", "isle: No such container: nope\n"},
			{"start -a aa", 0, "hi\n", ""},
			{"start -a bb", 9, "", ""},
			{"start -a aa bb", 1, "", "isle: you cannot start and attach multiple containers at once\n"},
			{"start --checkpoint x aa", 125, "", "isle: --checkpoint: checkpoints are not supported\n"},
			{"container start aa", 0, "aa\n", ""},
			{"container rm -f aa bb", 0, "aa\nbb\n", ""},
		},
		"images": {
			{"rmi alpine", 0, "Untagged: alpine\nDeleted: sha256:" + strings.Repeat("d", 64) + "\n", ""},
			{"rmi nope", 1, "", "isle: No such image: nope\n"},
			{"rmi -f nope", 0, "", "isle: No such image: nope\n"},
			{"rmi --platform linux/arm64 alpine", 1, "", "isle: no such image: alpine for linux/arm64\n"},
			{"rmi --platform linux/amd64 alpine", 0, "~Untagged", ""},
			{"tag alpine mine:1", 0, "", ""},
			{"image tag nope mine", 1, "", "isle: No such image: nope\n"},
			{"pull alpine", 0, "Using default tag: latest\ndocker.io/library/alpine:latest\n", ""},
			{"pull -q alpine", 0, "docker.io/library/alpine:latest\n", ""},
			{"pull nosuch", 1, "Using default tag: latest\n", "isle: manifest for nosuch not found: manifest unknown\n"},
			{"load", 0, "Loaded image: input\n", ""},
			{"load -i /nonexistent", 1, "", "isle: open /nonexistent: no such file or directory\n"},
			{"import - x:1", 0, "sha256:" + strings.Repeat("5", 64) + "\n", ""},
			{"import http://x/y n:1", 0, "Downloading from http://x/y\nsha256:5555555555555555555555555555555555555555555555555555555555555555\n", ""},
			{"images -q", 0, "dddddddddddd\ndddddddddddd\nffffffffffff\n999999999999\n", ""},
			{"images -q alpine", 0, "dddddddddddd\ndddddddddddd\n", ""},
			{"images nope", 0, "REPOSITORY   TAG       IMAGE ID   CREATED   SIZE\n", ""},
		},
		"inspect": {
			{"inspect nope", 1, "[]\n", "isle: Error: No such object: nope\n"},
			{"inspect -f {{.Id}} nope", 1, "\n", "isle: Error: No such object: nope\n"},
			{"container inspect nope", 1, "[]\n", "isle: No such container: nope\n"},
			{"image inspect nope", 1, "[]\n", "isle: No such image: nope\n"},
			{"inspect --type foo nope", 1, "", "~unknown type: \"foo\": must be one of"},
			{"inspect -f {{.Id}} alpine", 0, "sha256:" + strings.Repeat("d", 64) + "\n", ""},
			{"create --name cc -m 64m -l x=y alpine echo hi", 0, "~", ""},
			{"inspect -f {{.State.Status}},{{.Name}},{{.HostConfig.Memory}},{{json_.Config.Cmd}},{{index_.Config.Labels_\"x\"}} cc", 0, "created,/cc,67108864,[\"echo\",\"hi\"],y\n", ""},
			{"inspect -f {{.Id}} nope cc", 1, id(0) + "\n", "isle: Error: No such object: nope\n"},
			{"inspect -f {{.Foo}} cc", 1, "\n", "isle: template parsing error: template: :1:2: executing \"\" at <.Foo>: map has no entry for key \"Foo\"\n"},
			{"inspect -f {{.Foo cc", 1, "", "isle: template parsing error: template: :1: unclosed action\n"},
			{"inspect --type image cc", 1, "[]\n", "isle: No such image: cc\n"},
			{"inspect -s -f {{.SizeRw}} cc", 0, "0\n", ""},
			{"image inspect --platform linux/arm64 alpine", 1, "[]\n", "~does not provide the specified platform"},
		},
		"usage": {
			{"foo", 1, "", "isle: unknown command: isle foo\nSee 'isle --help'.\n"},
			{"container foo", 1, "", "isle: unknown command: isle container foo\nSee 'isle container --help'.\n"},
			{"container --foo", 125, "", "isle: unknown flag: --foo\nSee 'isle container --help'.\n"},
			{"help foo", 1, "", "isle: unknown help topic: foo\nSee 'isle help --help'.\n"},
			{"run --foo alpine", 125, "", "isle: unknown flag: --foo\nSee 'isle run --help'.\n"},
			{"run", 1, "", "isle: 'isle run' requires at least 1 argument\nSee 'isle run --help'.\n"},
			{"ps -z", 125, "", "isle: unknown shorthand flag: 'z' in -z\nSee 'isle ps --help'.\n"},
			{"image ls a b", 1, "", "isle: 'isle image ls' requires at most 1 argument\nSee 'isle image ls --help'.\n"},
			{"tag a", 1, "", "isle: 'isle tag' requires 2 arguments\nSee 'isle tag --help'.\n"},
			{"-H tcp://x ps", 1, "", "~isle has no daemon to connect to\nhint: "},
			{"--context other ps", 1, "", "~isle has no daemon"},
			{"-c default ps -q", 0, "", ""},
			{"-l nonsense ps", 125, "", "~unable to parse logging level: nonsense"},
			{"--nope", 125, "", "isle: unknown flag: --nope\nSee 'isle --help'.\n"},
			{"-v", 0, "~isle version ", ""},
			{"version --format {{.Server.Version}}", 0, engine.Version + "\n", ""},
			{"info -f {{.ContainersRunning}}", 0, "1\n", ""},
			{"info", 0, "~Operating System: evil\\x1b]0;x\\a\n", ""},
			{"run -p foo alpine", 125, "", "isle: invalid containerPort: foo\n"},
			{"run --pull foo alpine", 125, "", "isle: invalid pull option: 'foo': must be one of \"always\", \"missing\" or \"never\"\n"},
			{"run --rm --restart always alpine", 125, "", "isle: conflicting options: cannot specify both --restart and --rm\n"},
			{"completion tcsh", 1, "", "~want bash, zsh or fish"},
		},
		"complete": {
			{"__complete ru", 0, "run\tCreate and run a new container from an image\n", ""},
			{"__complete run --read", 0, "--read-only\tMount the container's root file system read-only\n", ""},
			{"__complete run --pull al", 0, "always\t\n", ""},
			{"__complete run alp", 0, "alpine:latest\tdddddddddddd\n", ""},
			{"__complete container in", 0, "inspect\tShow everything about containers\n", ""},
			{"create --name web alpine", 0, "~", ""},
			{"__complete rm w", 0, "web\talpine\n", ""},
			{"__complete rm -f web w", 0, "web\talpine\n", ""},
			{"__complete exec w", 0, "", ""},
			{"completion bash", 0, "~complete -o filenames -F _isle isle", ""},
		},
	} {
		t.Run(name, func(t *testing.T) {
			m := newMemory()
			for _, s := range steps {
				args := strings.Fields(s.args)
				for i := range args {
					if args[0] != "__complete" {
						args[i] = strings.ReplaceAll(args[i], "_", " ")
					}
				}
				got := isle(t, m, "input", args...)
				if got.code != s.code || !like(got.out, s.out) || !like(got.err, s.err) {
					t.Errorf("isle %s:\n exit %d, stdout %q, stderr %q\nwant %d, %q, %q", s.args, got.code, got.out, got.err, s.code, s.out, s.err)
				}
			}
		})
	}
}

func like(got, want string) bool {
	if w, ok := strings.CutPrefix(want, "~"); ok {
		return strings.Contains(got, w)
	}
	return got == want
}

func TestArgumentsReachTheEngine(t *testing.T) {
	m := newMemory()
	isle(t, m, "", "create", "--name", "web", "--pull", "never", "-q", "alpine")
	if m.created.Pull != "never" || !m.created.Quiet {
		t.Errorf("create options %+v", m.created)
	}
	isle(t, m, "", "stop", "web")
	isle(t, m, "", "stop", "-t", "-1", "-s", "int", "web")
	isle(t, m, "", "kill", "-s", "HUP", "web")
	isle(t, m, "", "import", "-c", "CMD x", "-m", "msg", "--platform", "linux/arm64", "-", "x:1")
	isle(t, m, "", "pull", "--platform", "linux/arm64", "alpine")
	want := []string{`stop web "" nil`, `stop web "int" -1`, `kill web "HUP"`, `import 0 x:1 ["CMD x"] msg linux/arm64`, `pull alpine linux/arm64`}
	if strings.Join(m.calls, "\n") != strings.Join(want, "\n") {
		t.Errorf("calls %q, want %q", m.calls, want)
	}
	t.Setenv("FROM_ENV", "v")
	isle(t, m, "", "exec", "-e", "A=b", "-e", "FROM_ENV", "-u", "5:6", "-w", "/x", "--privileged", "-d", "web", "ls", "-l")
	e := m.execs[len(m.execs)-1]
	if strings.Join(e.Env, " ") != "A=b FROM_ENV=v" || e.User != "5:6" || e.WorkingDir != "/x" || !e.Privileged || !e.Detach || strings.Join(e.Cmd, " ") != "ls -l" {
		t.Errorf("exec %+v", e)
	}
	isle(t, m, "", "logs", "-f", "-t", "-n", "5", "--details", "--since", "1700000000.5", "--until", "2023-01-02T03:04:05Z", "web")
	o := m.logOpts
	if !o.Follow || !o.Timestamps || o.Tail != 5 || !o.Details || !o.Since.Equal(time.Unix(1700000000, 5e8)) || !o.Until.Equal(time.Date(2023, 1, 2, 3, 4, 5, 0, time.UTC)) {
		t.Errorf("logs %+v", o)
	}
}

func TestCIDFile(t *testing.T) {
	m := newMemory()
	name := filepath.Join(t.TempDir(), "cid")
	if r := isle(t, m, "", "run", "--cidfile", name, "alpine", "echo", "hi"); r.code != 0 || r.out != "hi\n" {
		t.Fatalf("%+v", r)
	}
	b, err := os.ReadFile(name)
	if err != nil || string(b) != m.all[0].ID {
		t.Errorf("cidfile %q, %v", b, err)
	}
	r := isle(t, m, "", "create", "--cidfile", name, "alpine")
	if r.code != 1 || !strings.Contains(r.err, "container ID file found, make sure the other container isn't running or delete "+name) {
		t.Errorf("%+v", r)
	}
	if r := isle(t, m, "", "run", "--cidfile", "/nonexistent/x", "alpine"); r.code != 125 || len(m.all) != 1 {
		t.Errorf("%+v, %d containers", r, len(m.all))
	}
}

func TestHumanDuration(t *testing.T) {
	for d, want := range map[time.Duration]string{
		0: "Less than a second", time.Second: "1 second", 59 * time.Second: "59 seconds", time.Minute: "About a minute", 119 * time.Second: "About a minute",
		2 * time.Minute: "2 minutes", 59 * time.Minute: "59 minutes", time.Hour: "About an hour", 89 * time.Minute: "About an hour", 90 * time.Minute: "2 hours", 47 * time.Hour: "47 hours",
		48 * time.Hour: "2 days", 13 * 24 * time.Hour: "13 days", 14 * 24 * time.Hour: "2 weeks", 59 * 24 * time.Hour: "8 weeks", 60 * 24 * time.Hour: "2 months",
		729 * 24 * time.Hour: "24 months", 730 * 24 * time.Hour: "2 years",
	} {
		if got := humanDuration(d); got != want {
			t.Errorf("%v: %q, want %q", d, got, want)
		}
	}
}

func TestSizes(t *testing.T) {
	for n, want := range map[int64]string{0: "0B", 999: "999B", 1000: "1kB", 1234: "1.23kB", 7812345: "7.81MB", 999999: "1e+03kB", 187654321: "188MB", 5e12: "5TB"} {
		if want == "1e+03kB" {
			want = "1000kB" // differs: Docker prints an exponent here
		}
		if got := humanSize(n, 3); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
	for n, want := range map[int64]string{64 << 20: "64 MiB", 1 << 30: "1 GiB", 100: "100 B", 1536 << 20: "1.5 GiB"} {
		if got := binarySize(n); got != want {
			t.Errorf("%d: %q, want %q", n, got, want)
		}
	}
}

func TestNothingSteersTheTerminal(t *testing.T) {
	evil := "a\x1b[31mb\x07\r\n\u202ec\x9b\xff\u009b"
	m := newMemory()
	m.images[0].Tags = []string{evil + ":1"}
	c := &engine.Container{}
	c.ID, c.Config.Name, c.Config.Image = strings.Repeat("a", 64), evil, evil
	c.Config.Cmd = []string{evil}
	c.Config.Labels = map[string]string{"x": evil}
	c.State.Status, c.State.StartedAt = container.Running, time.Now()
	c.State.Health = &container.Health{Status: evil}
	c.Config.Mounts = []container.Mount{{Type: "bind", Source: evil, Target: "/x"}}
	m.all = append(m.all, c)
	for _, args := range [][]string{
		{"ps"},
		{"ps", "--no-trunc"},
		{"images"},
		{"images", "--digests"},
		{"rmi", evil},
		{"start", evil + "2"},
		{"info"},
		{evil},
		{"run", evil},
		{"ps", "--format", "{{.Names}} {{.Image}} {{.Labels}} {{.Mounts}} {{.Status}} {{.Label \"x\"}}"},
		{"ps", "--format", "json"},
		{"pull", evil + "nosuch"},
	} {
		r := isle(t, m, "", args...)
		for _, s := range []string{r.out, r.err} {
			if strings.ContainsAny(s, "\x1b\x07\r\u202e\u009b") || !utf8.ValidString(s) {
				t.Errorf("isle %q prints %q", args, s)
			}
		}
	}
}

func TestParseMoment(t *testing.T) {
	now := time.Date(2024, 5, 6, 7, 8, 9, 0, time.UTC)
	for in, want := range map[string]time.Time{
		"42m": now.Add(-42 * time.Minute), "1h30m": now.Add(-90 * time.Minute), "1700000000": time.Unix(1700000000, 0), "0.000000001": time.Unix(0, 1),
		"2013-01-02T13:23:37Z": time.Date(2013, 1, 2, 13, 23, 37, 0, time.UTC), "2013-01-02T13:23:37.5+01:00": time.Date(2013, 1, 2, 12, 23, 37, 5e8, time.UTC),
		"2013-01-02": time.Date(2013, 1, 2, 0, 0, 0, 0, time.Local), "2013-01-02T13:23": time.Date(2013, 1, 2, 13, 23, 0, 0, time.Local), "": {},
	} {
		if got, err := parseMoment("since", in, now); err != nil || !got.Equal(want) {
			t.Errorf("%q: %v, %v; want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"x", "2013", "2013-13-01", "1.x", "yesterday"} {
		if in == "2013" {
			continue // seconds since 1970
		}
		if _, err := parseMoment("since", in, now); err == nil {
			t.Errorf("%q: no error", in)
		}
	}
}
