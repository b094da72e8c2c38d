package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/isle-engine/isle/internal/testenv"
	"github.com/isle-engine/isle/test/images"
)

// peer is an engine that containers are run with through its command line.
type peer struct {
	name string
	argv []string // the command with its global options
	run  []string // options of run that this machine asks for
	env  []string
	user *testenv.User // nil: root
}

func (p *peer) command(args ...string) *exec.Cmd {
	argv := append(append([]string{}, p.argv...), args...)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"}, p.env...)
	cmd.Dir = "/"
	if p.user != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(p.user.UID), Gid: uint32(p.user.GID)}}
	}
	return cmd
}

// runArgs are the words of `run OPTIONS IMAGE COMMAND`.
func (p *peer) runArgs(options []string, image string, command ...string) []string {
	args := append(append([]string{"run"}, p.run...), options...)
	return append(append(args, image), command...)
}

// isle returns isle with directories of its own, as root or as a user.
func (b *bench) isle(name string, user *testenv.User) (*peer, error) {
	dir, err := b.sub(strings.ReplaceAll(name, " ", "-"))
	if err != nil {
		return nil, err
	}
	home := filepath.Join(dir, "home")
	if err := os.Mkdir(home, 0o700); err != nil {
		return nil, err
	}
	if user != nil {
		for _, d := range []string{dir, home} {
			if err := os.Chown(d, user.UID, user.GID); err != nil {
				return nil, err
			}
		}
	}
	exe := filepath.Join(b.bin, "isle")
	if user != nil {
		if exe, err = b.reachable(); err != nil {
			return nil, err
		}
	}
	p := &peer{name: name, argv: []string{exe}, user: user, env: []string{
		"HOME=" + home, "ISLE_ROOT=" + filepath.Join(dir, "d"), "ISLE_RUNROOT=" + filepath.Join(dir, "r"),
	}}
	b.later(func() {
		ids, err := outputOf(p.command("ps", "-aq"))
		if err == nil && ids != "" {
			_, err = outputOf(p.command(append([]string{"rm", "-f"}, strings.Fields(ids)...)...))
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "bench: clean up:", err)
		}
		// A user's namespace stays for the next container, by design.
		procs, err := testenv.Processes("isle-holder", dir)
		if err != nil {
			fmt.Fprintln(os.Stderr, "bench: clean up:", err)
		}
		for _, pid := range procs {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	return p, nil
}

// reachable returns a path of isle that every user can reach.
func (b *bench) reachable() (string, error) {
	dir, err := b.sub("bin")
	if err != nil {
		return "", err
	}
	for _, n := range []string{"isle", "isled"} {
		if out, err := exec.Command("cp", filepath.Join(b.bin, n), dir).CombinedOutput(); err != nil {
			return "", fmt.Errorf("copy %s: %w: %s", n, err, out)
		}
	}
	return filepath.Join(dir, "isle"), nil
}

// findPeers prepares isle and every peer that is installed and runs here, and has
// each pull the small image.
func (b *bench) findPeers(ctx context.Context) error {
	root, err := b.isle("isle", nil)
	if err != nil {
		return err
	}
	b.peers = append(b.peers, root)
	if u, err := testenv.TestUser(); err == nil {
		p, err := b.isle("isle rootless", &u)
		if err != nil {
			return err
		}
		b.peers = append(b.peers, p)
	} else {
		b.report.printf("no rootless figures: %v\n", err)
	}
	for _, find := range []func(context.Context) (*peer, error){b.podman, b.docker} {
		p, err := find(ctx)
		if err != nil {
			b.report.printf("not compared: %v\n", err)
			continue
		}
		b.peers = append(b.peers, p)
	}
	for i := 0; i < len(b.peers); i++ {
		p := b.peers[i]
		pull := []string{"pull", b.image()}
		if p.name == "podman" {
			pull = []string{"pull", "--tls-verify=false", b.image()}
		}
		_, err := outputOf(p.command(pull...))
		if err == nil {
			_, err = outputOf(p.command(p.runArgs([]string{"--rm", "--network", "none"}, b.image(), "true")...))
		}
		switch {
		case err == nil:
		case p == root:
			return err
		default:
			b.report.printf("not compared: %s: %v\n", p.name, err)
			b.peers = append(b.peers[:i], b.peers[i+1:]...)
			i--
		}
	}
	return nil
}

// peer returns a prepared peer by name, or nil.
func (b *bench) peer(name string) *peer {
	for _, p := range b.peers {
		if p.name == name {
			return p
		}
	}
	return nil
}

func (b *bench) podman(context.Context) (*peer, error) {
	exe, err := testenv.LookTool("podman")
	if err != nil {
		return nil, err
	}
	dir, err := b.sub("podman")
	if err != nil {
		return nil, err
	}
	p := &peer{name: "podman", argv: []string{exe, "--root", dir + "/root", "--runroot", dir + "/run", "--cgroup-manager=cgroupfs"}}
	if _, err := testenv.LookTool("runc"); err == nil {
		p.argv = append(p.argv, "--runtime", "runc") // crun refuses hybrid cgroups
	}
	// podman's default limits ask for more than a process without
	// CAP_SYS_RESOURCE may give.
	p.run = []string{"--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1000:1000"}
	b.later(func() {
		for _, args := range [][]string{{"rm", "-af", "-t", "0"}, {"umount", "-af"}} {
			if _, err := outputOf(p.command(args...)); err != nil {
				fmt.Fprintln(os.Stderr, "bench: clean up:", err)
			}
		}
		_ = syscall.Unmount(dir+"/root/overlay", 0) // podman binds it onto itself
	})
	return p, nil
}

// docker starts a dockerd of our own, on its own socket and directories.
func (b *bench) docker(ctx context.Context) (*peer, error) {
	daemon, err := testenv.LookTool("dockerd")
	if err != nil {
		return nil, err
	}
	client, err := testenv.LookTool("docker")
	if err != nil {
		return nil, err
	}
	dir, err := b.sub("docker")
	if err != nil {
		return nil, err
	}
	log, err := os.OpenFile(dir+"/log", os.O_CREATE|os.O_WRONLY|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(daemon, "--data-root", dir+"/data", "--exec-root", dir+"/exec", "-H", "unix://"+dir+"/sock", "-p", dir+"/pid",
		"--bridge=none", "--iptables=false", "--insecure-registry", b.reg.Addr)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	b.later(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		_ = cmd.Wait() // ended by our signal
	})
	p := &peer{name: "docker", argv: []string{client, "-H", "unix://" + dir + "/sock"}, env: []string{"DOCKER_CONFIG=" + dir}}
	b.later(func() {
		if ids, err := outputOf(p.command("ps", "-aq")); err == nil && ids != "" {
			_, err = outputOf(p.command(append([]string{"rm", "-f"}, strings.Fields(ids)...)...))
			if err != nil {
				fmt.Fprintln(os.Stderr, "bench: clean up:", err)
			}
		}
	})
	for end := time.Now().Add(30 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		_, err := outputOf(p.command("version"))
		if err == nil {
			return p, nil
		}
		if time.Now().After(end) || ctx.Err() != nil {
			return nil, errors.Join(fmt.Errorf("dockerd does not answer (%s/log)", dir), err, ctx.Err())
		}
	}
}

// rootfs unpacks the small image for contenders that take a directory.
func (b *bench) rootfs() (string, error) {
	dir, err := b.sub("rootfs")
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(dir + "/bin/busybox"); err == nil {
		return dir, nil
	}
	store, err := b.sub("registry")
	if err != nil {
		return "", err
	}
	m, err := images.Busybox(store)
	if err != nil {
		return "", err
	}
	return dir, m.Extract(dir, untar)
}

func untar(layer, dir string) error {
	out, err := exec.Command("tar", "-xzf", layer, "-C", dir).CombinedOutput()
	if err != nil {
		return fmt.Errorf("tar: %w: %s", err, out)
	}
	return nil
}

// bundle prepares a bundle for runc and crun: what `runc spec` writes, with the
// command in place of sh and without a terminal.
func (b *bench) bundle(runtime string, command ...string) (string, error) {
	rootfs, err := b.rootfs()
	if err != nil {
		return "", err
	}
	dir, err := b.sub("bundle-" + filepath.Base(runtime) + "-" + command[0])
	if err != nil {
		return "", err
	}
	if err := os.Remove(dir + "/config.json"); err != nil && !os.IsNotExist(err) {
		return "", err
	}
	cmd := exec.Command(runtime, "spec")
	cmd.Dir = dir
	if _, err := outputOf(cmd); err != nil {
		return "", err
	}
	data, err := os.ReadFile(dir + "/config.json")
	if err != nil {
		return "", err
	}
	var spec map[string]any
	if err := json.Unmarshal(data, &spec); err != nil {
		return "", err
	}
	process, ok1 := spec["process"].(map[string]any)
	root, ok2 := spec["root"].(map[string]any)
	if !ok1 || !ok2 {
		return "", fmt.Errorf("%s spec: no process or root", runtime)
	}
	process["terminal"], process["args"] = false, command
	delete(process, "rlimits") // they ask for more than some machines let root give
	root["path"], root["readonly"] = rootfs, false
	if data, err = json.Marshal(spec); err != nil {
		return "", err
	}
	return dir, os.WriteFile(dir+"/config.json", data, 0o600)
}
