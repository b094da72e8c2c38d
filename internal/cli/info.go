package cli

import (
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/isle-engine/isle/internal/engine"
)

// infoJSON is Docker's info as far as isle has an answer, and what isle adds.
type infoJSON struct {
	ID                 string
	Containers         int
	ContainersRunning  int
	ContainersPaused   int
	ContainersStopped  int
	Images             int
	Driver             string
	DriverStatus       [][2]string
	Plugins            infoPlugins
	MemoryLimit        bool
	SwapLimit          bool
	CPUCfsPeriod       bool `json:"CpuCfsPeriod"`
	CPUCfsQuota        bool `json:"CpuCfsQuota"`
	CPUShares          bool
	CPUSet             bool
	PidsLimit          bool
	IPv4Forwarding     bool
	Debug              bool
	OomKillDisable     bool
	SystemTime         string
	LoggingDriver      string
	CgroupDriver       string
	CgroupVersion      string
	CgroupHybrid       bool     // isle's: version 2 without controllers beside version 1
	CgroupControllers  []string // isle's
	KernelVersion      string
	OperatingSystem    string
	OSVersion          string
	OSType             string
	Architecture       string
	IndexServerAddress string
	NCPU               int
	MemTotal           int64
	DockerRootDir      string
	RunRoot            string // isle's
	Name               string
	Labels             []string
	ExperimentalBuild  bool
	ServerVersion      string
	Runtimes           map[string]infoRuntime
	DefaultRuntime     string
	Swarm              infoSwarm
	LiveRestoreEnabled bool
	SecurityOptions    []string
	Warnings           []string
	Rootless           bool // isle's
	ClientInfo         infoClient
}

type infoPlugins struct{ Volume, Network, Authorization, Log []string }

type infoRuntime struct {
	Path string `json:"path"`
}

type infoSwarm struct{ LocalNodeState string }

type infoClient struct {
	Debug     bool
	Version   string
	GitCommit string
	GoVersion string
	Os        string
	Arch      string
	BuildTime string
	Context   string
	Plugins   []string
	Warnings  []string
}

func cmdInfo(c *call) func() error {
	var text string
	c.flags = []flag{{name: "format", short: 'f', v: (*stringVar)(&text), help: inspectFormatHelp}}
	return func() error {
		eng, err := c.engine()
		if err != nil {
			return err
		}
		i, err := eng.Info(c.ctx)
		if err != nil {
			return err
		}
		j := c.info(&i)
		if text != "" {
			return c.printOne(text, j)
		}
		if err := printInfo(c.stdout(), j); err != nil {
			return err
		}
		for _, w := range j.Warnings {
			fmt.Fprintln(c.err, w)
		}
		return nil
	}
}

// info puts what the engine tells into Docker's shape.
func (c *call) info(i *engine.Info) *infoJSON {
	commit, date := build()
	has := func(controller string) bool { return slices.Contains(i.CgroupControllers, controller) }
	cpu := has("cpu")
	j := &infoJSON{
		ID:         i.ID,
		Containers: i.Containers, ContainersRunning: i.Running, ContainersPaused: i.Paused, ContainersStopped: i.Stopped, Images: i.Images,
		Driver: "overlay2", DriverStatus: [][2]string{{"Backing Filesystem", i.FileSystem}, {"Supports d_type", "true"}, {"Native Overlay Diff", "true"}, {"userxattr", fmt.Sprint(i.Rootless)}},
		Plugins:     infoPlugins{[]string{"local"}, []string{"bridge", "host", "ipvlan", "macvlan", "none"}, nil, i.LogDrivers},
		MemoryLimit: has("memory"), SwapLimit: has("memory"), CPUCfsPeriod: cpu, CPUCfsQuota: cpu, CPUShares: cpu, CPUSet: has("cpuset"), PidsLimit: has("pids"),
		IPv4Forwarding: i.IPv4Forwarding, Debug: c.debug, OomKillDisable: i.CgroupVersion != "2", SystemTime: time.Now().Format(time.RFC3339Nano),
		LoggingDriver: "json-file", CgroupDriver: "cgroupfs", CgroupVersion: "1", CgroupHybrid: i.CgroupVersion == "hybrid", CgroupControllers: nonNil(i.CgroupControllers),
		KernelVersion: i.Kernel, OperatingSystem: i.OperatingSystem, OSVersion: i.OSVersion, OSType: runtime.GOOS, Architecture: i.Architecture,
		IndexServerAddress: "https://index.docker.io/v1/", NCPU: i.NCPU, MemTotal: i.MemTotal,
		DockerRootDir: i.Root, RunRoot: i.RunRoot, Name: i.Hostname, Labels: []string{}, ServerVersion: i.Version,
		Runtimes: map[string]infoRuntime{"isle": {"isle"}}, DefaultRuntime: "isle", Swarm: infoSwarm{"inactive"}, LiveRestoreEnabled: true,
		SecurityOptions: nonNil(i.SecurityOptions), Rootless: i.Rootless,
		ClientInfo: infoClient{c.debug, i.Version, commit, runtime.Version(), runtime.GOOS, runtime.GOARCH, date, "default", []string{}, nil},
	}
	if i.CgroupVersion == "2" {
		j.CgroupVersion = "2"
	}
	for _, w := range [...]struct {
		has  bool
		what string
	}{{j.MemoryLimit, "memory limit"}, {j.SwapLimit, "swap limit"}, {j.CPUShares, "cpu shares"}, {j.CPUSet, "cpuset"}, {j.PidsLimit, "pids limit"}} {
		if !w.has {
			j.Warnings = append(j.Warnings, "WARNING: No "+w.what+" support")
		}
	}
	return j
}

// printInfo lays it out as Docker does.
func printInfo(w io.Writer, j *infoJSON) error {
	line := func(depth int, name string, v any) {
		fmt.Fprintf(w, "%s%s: %s\n", strings.Repeat(" ", depth), name, visible(fmt.Sprint(v)))
	}
	fmt.Fprintf(w, "Client:\n Version:    %s\n Context:    %s\n Debug Mode: %v\n\nServer:\n", j.ClientInfo.Version, j.ClientInfo.Context, j.ClientInfo.Debug)
	line(1, "Containers", j.Containers)
	line(2, "Running", j.ContainersRunning)
	line(2, "Paused", j.ContainersPaused)
	line(2, "Stopped", j.ContainersStopped)
	line(1, "Images", j.Images)
	line(1, "Server Version", j.ServerVersion)
	line(1, "Storage Driver", j.Driver)
	for _, s := range j.DriverStatus {
		line(2, s[0], s[1])
	}
	line(1, "Logging Driver", j.LoggingDriver)
	line(1, "Cgroup Driver", j.CgroupDriver)
	if j.CgroupHybrid {
		line(1, "Cgroup Version", "1 (hybrid)")
	} else {
		line(1, "Cgroup Version", j.CgroupVersion)
	}
	line(1, "Cgroup Controllers", strings.Join(j.CgroupControllers, " "))
	fmt.Fprintln(w, " Plugins:")
	line(2, "Volume", strings.Join(j.Plugins.Volume, " "))
	line(2, "Network", strings.Join(j.Plugins.Network, " "))
	line(2, "Log", strings.Join(j.Plugins.Log, " "))
	line(1, "Swarm", j.Swarm.LocalNodeState)
	line(1, "Runtimes", "isle")
	line(1, "Default Runtime", j.DefaultRuntime)
	if len(j.SecurityOptions) > 0 {
		fmt.Fprintln(w, " Security Options:")
		for _, o := range j.SecurityOptions {
			for i, kv := range strings.Split(o, ",") {
				k, v, _ := strings.Cut(kv, "=")
				if i == 0 {
					fmt.Fprintf(w, "  %s\n", visible(v))
				} else {
					line(3, strings.ToUpper(k[:1])+k[1:], v)
				}
			}
		}
	}
	line(1, "Kernel Version", j.KernelVersion)
	line(1, "Operating System", j.OperatingSystem)
	line(1, "OSType", j.OSType)
	line(1, "Architecture", j.Architecture)
	line(1, "CPUs", j.NCPU)
	line(1, "Total Memory", strings.ReplaceAll(binarySize(j.MemTotal), " ", ""))
	line(1, "Name", j.Name)
	line(1, "ID", j.ID)
	line(1, "Docker Root Dir", j.DockerRootDir)
	line(1, "Run Dir", j.RunRoot)
	line(1, "Debug Mode", j.Debug)
	line(1, "Experimental", j.ExperimentalBuild)
	line(1, "Live Restore Enabled", j.LiveRestoreEnabled)
	_, err := fmt.Fprintln(w)
	return err
}
