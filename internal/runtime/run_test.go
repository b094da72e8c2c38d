package runtime

import (
	"testing"

	"github.com/isle-engine/isle/internal/testenv"
)

func TestHello(t *testing.T) {
	testenv.Need(t, testenv.Root)
	s := docker(rootfs(t), "sh", "-c", "id; hostname; cat /proc/self/mountinfo; ls -l /dev /proc/self/fd; cat /proc/self/status | grep -E 'Cap|Groups|NoNew|Secc|Umask'; ps; ip link")
	r := run(t, s, Options{Pdeathsig: true})
	t.Logf("code %d\n%s", r.code, r.out)
	t.Logf("%+v", r.proc)
}
