package e2e

import (
	"context"
	"io"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/explain/tour"
	"github.com/isle-engine/isle/internal/testenv"
)

// TestTourWithoutATerminal goes through it as plain text.
func TestTourAsUser(t *testing.T) {
	if !asUser(t) {
		return
	}
	h := newHost(t)
	text := h.ok("isle tour --yes </dev/null 2>&1")
	for _, s := range tour.Steps() {
		if !strings.Contains(text, s.Title) || !strings.Contains(text, "A: "+s.Answer) {
			t.Errorf("lesson %q is not in\n%s", s.Title, text)
		}
	}
	for _, want := range []string{"pid 1, user 0", "--cap-add SYS_ADMIN", "A /written-by-the-tour", "until the command ran"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not in\n%s", want, text)
		}
	}
	if strings.Contains(text, "\x1b") {
		t.Error("a file gets what is for terminals")
	}
	if left := h.ok("isle ps -aq"); left != "" {
		t.Errorf("the tour left %s", left)
	}
}

// TestTourInATerminal answers its questions by a real terminal, and leaves in the
// middle.
func TestTourInATerminalAsRoot(t *testing.T) {
	if !asRoot(t) {
		return
	}
	h := newHost(t)
	h.ok("isle plan isle/base true") // fetches the image
	master, slave := openTerminal(t)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := h.command(ctx, "isle", "tour")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if err := slave.Close(); err != nil {
		t.Fatal(err)
	}
	screen := make(chan string)
	go func() {
		var all strings.Builder
		buf := make([]byte, 4096)
		answers := []string{"1\n", "magic\n", "q\n"}
		for {
			n, err := master.Read(buf) // EIO: the last process has closed it
			all.Write(buf[:n])
			if asked := strings.Count(all.String(), "Q: "); asked > 3-len(answers) && len(answers) > 0 {
				if _, err := io.WriteString(master, answers[0]); err == nil {
					answers = answers[1:]
				}
			}
			if err != nil {
				screen <- all.String()
				return
			}
		}
	}()
	err := cmd.Wait()
	text := <-screen
	if err != nil {
		t.Errorf("tour: %v\n%s", err, text)
	}
	for _, want := range []string{"A: Right. 1: it is the first", "A: Not quite. setns(2)", "3. Control groups", "\x1b[1m"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not on the screen:\n%s", want, text)
		}
	}
	if left := h.ok("isle ps -aq"); left != "" {
		t.Errorf("the tour left %s", left)
	}
}

func openTerminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = master.Close() })
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile("/dev/pts/"+strconv.Itoa(n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return master, slave
}

// TestTourAndItsText: each lesson has its section, each claim both commands.
func TestTourAndItsText(t *testing.T) {
	testenv.Need(t, testenv.Source)
	text, err := os.ReadFile("../../docs/how-a-container-works.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "\n## ")
	sections := strings.Split(rest, "\n## ")
	steps := tour.Steps()
	if len(sections) != len(steps) {
		t.Fatalf("%d sections, %d lessons", len(sections), len(steps))
	}
	for i, s := range sections {
		title, body, _ := strings.Cut(s, "\n")
		if title != steps[i].Title {
			t.Errorf("section %q, lesson %q", title, steps[i].Title)
		}
		claims := 0
		for line := range strings.Lines(body) {
			cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), " | ")
			if len(cells) != 3 || strings.HasPrefix(line, "| claim") {
				continue
			}
			claims++
			if !strings.Contains(cells[1], "`isle ") || !strings.Contains(cells[2], "`") {
				t.Errorf("%s: %q has no command of isle and of plain Linux", title, cells[0])
			}
		}
		if claims < 3 {
			t.Errorf("%s: %d claims", title, claims)
		}
	}
}
