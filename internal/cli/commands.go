package cli

import "strings"

// command is one command of the table. The flags are made by setup, for the
// chosen command only: building those of all would cost every start a millisecond.
type command struct {
	// paths are the command's spellings, the main one first: "ps", "container ls".
	paths []string
	group string
	short string // one line, for the lists of commands
	usage string // what follows the name
	// min and max are how many arguments it takes; -1: any number.
	min, max int
	// wordsEndFlags: the first argument ends the flags (run IMAGE COMMAND -x).
	wordsEndFlags bool
	// engineExit is the exit code of failures that carry none of their own.
	engineExit int
	// setup fills c.flags and returns what to do once they are parsed.
	setup func(c *call) func() error
}

const (
	groupCommon = "Common Commands"
	groupAll    = "Commands"
)

// commands is the table. It is a function so that it costs nothing at start and
// may be used by the commands themselves (help, completion).
func commands() []command {
	return []command{
		{paths: []string{"run", "container run"}, group: groupCommon, short: "Create and run a new container from an image", usage: "[OPTIONS] IMAGE [COMMAND] [ARG...]", min: 1, max: -1, wordsEndFlags: true, engineExit: 125, setup: cmdRun},
		{paths: []string{"exec", "container exec"}, group: groupCommon, short: "Execute a command in a running container", usage: "[OPTIONS] CONTAINER COMMAND [ARG...]", min: 2, max: -1, wordsEndFlags: true, setup: cmdExec},
		{paths: []string{"ps", "container ls", "container list", "container ps"}, group: groupCommon, short: "List containers", usage: "[OPTIONS]", setup: cmdPs},
		{paths: []string{"pull", "image pull"}, group: groupCommon, short: "Download an image from a registry", usage: "[OPTIONS] NAME[:TAG|@DIGEST]", min: 1, max: 1, setup: cmdPull},
		{paths: []string{"push", "image push"}, group: groupCommon, short: "Upload an image to a registry", usage: "[OPTIONS] NAME[:TAG]", min: 1, max: 1, setup: cmdPush},
		{paths: []string{"images", "image ls", "image list"}, group: groupCommon, short: "List images", usage: "[OPTIONS] [REPOSITORY[:TAG]]", max: 1, setup: cmdImages},
		{paths: []string{"login"}, group: groupCommon, short: "Log in to a registry", usage: "[OPTIONS] [SERVER]", max: 1, setup: cmdLogin},
		{paths: []string{"logout"}, group: groupCommon, short: "Log out from a registry", usage: "[SERVER]", max: 1, setup: cmdLogout},
		{paths: []string{"search"}, group: groupCommon, short: "Search a registry for images", usage: "[OPTIONS] TERM", min: 1, max: 1, setup: cmdSearch},
		{paths: []string{"version"}, group: groupCommon, short: "Show the version of isle", usage: "[OPTIONS]", setup: cmdVersion},
		{paths: []string{"info", "system info"}, group: groupCommon, short: "Show what isle knows of this machine", usage: "[OPTIONS]", setup: cmdInfo},

		{paths: []string{"attach", "container attach"}, group: groupAll, short: "Attach this terminal to a running container", usage: "[OPTIONS] CONTAINER", min: 1, max: 1, setup: cmdAttach},
		{paths: []string{"commit", "container commit"}, group: groupAll, short: "Make an image of what a container has changed", usage: "[OPTIONS] CONTAINER [REPOSITORY[:TAG]]", min: 1, max: 2, setup: cmdCommit},
		{paths: []string{"completion"}, group: groupAll, short: "Print the completion script for a shell", usage: "bash|zsh|fish", min: 1, max: 1, setup: cmdCompletion},
		{paths: []string{"cp", "container cp"}, group: groupAll, short: "Copy files between a container and this machine", usage: "[OPTIONS] CONTAINER:SRC_PATH DEST_PATH|-\n\tisle cp [OPTIONS] SRC_PATH|- CONTAINER:DEST_PATH", min: 2, max: 2, setup: cmdCp},
		{paths: []string{"create", "container create"}, group: groupAll, short: "Create a new container", usage: "[OPTIONS] IMAGE [COMMAND] [ARG...]", min: 1, max: -1, wordsEndFlags: true, setup: cmdCreate},
		{paths: []string{"diff", "container diff"}, group: groupAll, short: "List what a container has changed in its file system", usage: "CONTAINER", min: 1, max: 1, setup: cmdDiff},
		{paths: []string{"doctor"}, group: groupAll, short: "Check what this machine lacks for containers, and say what repairs it", usage: "[OPTIONS]", setup: cmdDoctor},
		{paths: []string{"events", "system events"}, group: groupAll, short: "Show what happens to containers, images, networks and volumes, live", usage: "[OPTIONS]", setup: cmdEvents},
		{paths: []string{"explain"}, group: groupAll, short: "Show what a container is, read live from the kernel", usage: "[OPTIONS] CONTAINER", min: 1, max: 1, setup: cmdExplain},
		{paths: []string{"export", "container export"}, group: groupAll, short: "Write a container's file system as a tar archive", usage: "[OPTIONS] CONTAINER", min: 1, max: 1, setup: cmdExport},
		{paths: []string{"help"}, group: groupAll, short: "Show the help of a command", usage: "[COMMAND]", max: -1, setup: cmdHelp},
		{paths: []string{"history", "image history"}, group: groupAll, short: "Show how an image was made", usage: "[OPTIONS] IMAGE", min: 1, max: 1, setup: cmdHistory},
		{paths: []string{"import", "image import"}, group: groupAll, short: "Make an image of a root file system's tar archive", usage: "[OPTIONS] file|- [REPOSITORY[:TAG]]", min: 1, max: 2, setup: cmdImport},
		{paths: []string{"inspect"}, group: groupAll, short: "Show everything about containers and images", usage: "[OPTIONS] NAME|ID [NAME|ID...]", min: 1, max: -1, setup: cmdInspect},
		{paths: []string{"kill", "container kill"}, group: groupAll, short: "Kill running containers, or send them a signal", usage: "[OPTIONS] CONTAINER [CONTAINER...]", min: 1, max: -1, setup: cmdKill},
		{paths: []string{"load", "image load"}, group: groupAll, short: "Load images from a tar archive or standard input", usage: "[OPTIONS]", setup: cmdLoad},
		{paths: []string{"logs", "container logs"}, group: groupAll, short: "Show the log of a container", usage: "[OPTIONS] CONTAINER", min: 1, max: 1, setup: cmdLogs},
		{paths: []string{"oci"}, group: groupAll, short: "Run OCI bundles, with the command line of runc", usage: "[OPTIONS] COMMAND [ARG...]", min: 1, max: -1, wordsEndFlags: true, setup: cmdOCI},
		{paths: []string{"pause", "container pause"}, group: groupAll, short: "Freeze all processes of containers", usage: "CONTAINER [CONTAINER...]", min: 1, max: -1, setup: cmdPause(true)},
		{paths: []string{"plan"}, group: groupAll, short: "Show the system calls that a run would make, without running", usage: "[OPTIONS] IMAGE [COMMAND] [ARG...]", min: 1, max: -1, wordsEndFlags: true, engineExit: 125, setup: cmdPlan},
		{paths: []string{"rename", "container rename"}, group: groupAll, short: "Give a container another name", usage: "CONTAINER NEW_NAME", min: 2, max: 2, setup: cmdRename},
		{paths: []string{"restart", "container restart"}, group: groupAll, short: "Stop containers and start them again", usage: "[OPTIONS] CONTAINER [CONTAINER...]", min: 1, max: -1, setup: cmdRestart},
		{paths: []string{"rm", "container rm", "container remove"}, group: groupAll, short: "Remove containers", usage: "[OPTIONS] CONTAINER [CONTAINER...]", min: 1, max: -1, setup: cmdRm},
		{paths: []string{"rmi", "image rm", "image remove"}, group: groupAll, short: "Remove images", usage: "[OPTIONS] IMAGE [IMAGE...]", min: 1, max: -1, setup: cmdRmi},
		{paths: []string{"save", "image save"}, group: groupAll, short: "Write images to a tar archive (standard output if no file is named)", usage: "[OPTIONS] IMAGE [IMAGE...]", min: 1, max: -1, setup: cmdSave},
		{paths: []string{"start", "container start"}, group: groupAll, short: "Start containers that were created or have ended", usage: "[OPTIONS] CONTAINER [CONTAINER...]", min: 1, max: -1, setup: cmdStart},
		{paths: []string{"stats", "container stats"}, group: groupAll, short: "Show what containers use, live", usage: "[OPTIONS] [CONTAINER...]", max: -1, setup: cmdStats},
		{paths: []string{"stop", "container stop"}, group: groupAll, short: "Stop running containers", usage: "[OPTIONS] CONTAINER [CONTAINER...]", min: 1, max: -1, setup: cmdStop},
		{paths: []string{"tag", "image tag"}, group: groupAll, short: "Give an image a further name", usage: "SOURCE_IMAGE[:TAG] TARGET_IMAGE[:TAG]", min: 2, max: 2, setup: cmdTag},
		{paths: []string{"top", "container top"}, group: groupAll, short: "List the processes of a container", usage: "CONTAINER [ps OPTIONS]", min: 1, max: -1, wordsEndFlags: true, setup: cmdTop},
		{paths: []string{"unpause", "container unpause"}, group: groupAll, short: "Let frozen containers go on", usage: "CONTAINER [CONTAINER...]", min: 1, max: -1, setup: cmdPause(false)},
		{paths: []string{"update", "container update"}, group: groupAll, short: "Change limits and restart policy of containers", usage: "[OPTIONS] CONTAINER [CONTAINER...]", min: 1, max: -1, setup: cmdUpdate},
		{paths: []string{"wait", "container wait"}, group: groupAll, short: "Wait until containers end, and print their exit codes", usage: "CONTAINER [CONTAINER...]", min: 1, max: -1, setup: cmdWait},

		{paths: []string{"port", "container port"}, group: groupAll, short: "List the published ports of a container", usage: "CONTAINER [PRIVATE_PORT[/PROTO]]", min: 1, max: 2, setup: cmdPort},
		{paths: []string{"manifest annotate"}, short: "Say more of an image's platform in a local manifest list", usage: "[OPTIONS] MANIFEST_LIST MANIFEST", min: 2, max: 2, setup: cmdManifestAnnotate},
		{paths: []string{"manifest create"}, short: "Create a local manifest list, to be annotated and pushed", usage: "MANIFEST_LIST MANIFEST [MANIFEST...]", min: 2, max: -1, setup: cmdManifestCreate},
		{paths: []string{"manifest inspect"}, short: "Show the manifest of an image, or a manifest list", usage: "[OPTIONS] [MANIFEST_LIST] MANIFEST", min: 1, max: 2, setup: cmdManifestInspect},
		{paths: []string{"manifest push"}, short: "Push a manifest list to a repository", usage: "[OPTIONS] MANIFEST_LIST", min: 1, max: 1, setup: cmdManifestPush},
		{paths: []string{"manifest rm"}, short: "Remove local manifest lists", usage: "MANIFEST_LIST [MANIFEST_LIST...]", min: 1, max: -1, setup: cmdManifestRm},
		{paths: []string{"network connect"}, short: "Connect a container to a network", usage: "[OPTIONS] NETWORK CONTAINER", min: 2, max: 2, setup: cmdNetworkConnect},
		{paths: []string{"network create"}, short: "Create a network", usage: "[OPTIONS] NETWORK", min: 1, max: 1, setup: cmdNetworkCreate},
		{paths: []string{"network disconnect"}, short: "Disconnect a container from a network", usage: "[OPTIONS] NETWORK CONTAINER", min: 2, max: 2, setup: cmdNetworkDisconnect},
		{paths: []string{"network inspect"}, short: "Show everything about networks", usage: "[OPTIONS] NETWORK [NETWORK...]", min: 1, max: -1, setup: cmdNetworkInspect},
		{paths: []string{"network ls", "network list"}, short: "List networks", usage: "[OPTIONS]", setup: cmdNetworkList},
		{paths: []string{"network prune"}, short: "Remove the networks that no container uses", usage: "[OPTIONS]", setup: cmdNetworkPrune},
		{paths: []string{"network rm", "network remove"}, short: "Remove networks", usage: "NETWORK [NETWORK...]", min: 1, max: -1, setup: cmdNetworkRm},
		{paths: []string{"startup disable"}, short: "Leave containers stopped after a reboot", setup: startup(startupDisable)},
		{paths: []string{"startup enable"}, short: "Start containers with a restart policy after a reboot", setup: startup(startupEnable)},
		{paths: []string{"startup run"}, short: "Start them now, as at boot", setup: startup(startupRun)},
		{paths: []string{"startup status"}, short: "Show whether and how they are started", setup: startup(startupStatus)},
		{paths: []string{"tour"}, group: groupAll, short: "Learn what a container is, with containers of your own", usage: "[OPTIONS]", setup: cmdTour},
		{paths: []string{"why"}, group: groupAll, short: "Run a command in a container and show why system calls are refused", usage: "[OPTIONS] CONTAINER [--] COMMAND [ARG...]", min: 2, max: -1, wordsEndFlags: true, setup: cmdWhy},
		{paths: []string{"volume create"}, short: "Create a volume", usage: "[OPTIONS] [VOLUME]", max: 1, setup: cmdVolumeCreate},
		{paths: []string{"volume export"}, short: "Write a volume's files as a tar archive", usage: "[OPTIONS] VOLUME", min: 1, max: 1, setup: cmdVolumeExport},
		{paths: []string{"volume import"}, short: "Lay a tar archive out in a volume", usage: "VOLUME [file|-]", min: 1, max: 2, setup: cmdVolumeImport},
		{paths: []string{"volume inspect"}, short: "Show everything about volumes", usage: "[OPTIONS] VOLUME [VOLUME...]", min: 1, max: -1, setup: cmdVolumeInspect},
		{paths: []string{"volume ls", "volume list"}, short: "List volumes", usage: "[OPTIONS]", setup: cmdVolumeList},
		{paths: []string{"volume prune"}, short: "Remove the volumes that no container uses", usage: "[OPTIONS]", setup: cmdVolumePrune},
		{paths: []string{"volume rm", "volume remove"}, short: "Remove volumes that no container uses", usage: "[OPTIONS] VOLUME [VOLUME...]", min: 1, max: -1, setup: cmdVolumeRm},
		{paths: []string{"container inspect"}, short: "Show everything about containers", usage: "[OPTIONS] CONTAINER [CONTAINER...]", min: 1, max: -1, setup: cmdContainerInspect},
		{paths: []string{"container prune"}, short: "Remove all containers that do not run", usage: "[OPTIONS]", setup: cmdContainerPrune},
		{paths: []string{"image prune"}, short: "Remove images that no container uses", usage: "[OPTIONS]", setup: cmdImagePrune},
		{paths: []string{"system check"}, short: "Compare all that is stored with what it should be, and repair it", usage: "[OPTIONS]", setup: cmdSystemCheck},
		{paths: []string{"system df"}, short: "Show what containers, images and volumes take on disk", usage: "[OPTIONS]", setup: cmdSystemDf},
		{paths: []string{"system prune"}, short: "Remove what is not in use", usage: "[OPTIONS]", setup: cmdSystemPrune},
		{paths: []string{"image inspect"}, short: "Show everything about images", usage: "[OPTIONS] IMAGE [IMAGE...]", min: 1, max: -1, setup: cmdImageInspect},

		{paths: []string{"__complete"}, usage: "[WORD...]", max: -1, wordsEndFlags: true, setup: cmdComplete},
	}
}

// groups are the management commands: a word that commands can be called below.
func groups() [7]struct{ name, short string } {
	return [7]struct{ name, short string }{
		{"container", "Manage containers"},
		{"image", "Manage images"},
		{"manifest", "Manage manifests and manifest lists"},
		{"network", "Manage networks"},
		{"startup", "Manage what comes back after a reboot"},
		{"system", "Manage isle"},
		{"volume", "Manage volumes"},
	}
}

func isGroup(word string) bool {
	for _, g := range groups() {
		if g.name == word {
			return true
		}
	}
	return false
}

// find returns the command that args begin with, its name (the main one at that
// place: "container ls" for "container ps"), and what follows it.
func find(args []string) (*command, string, []string) {
	word, n := args[0], 1
	if len(args) > 1 && isGroup(word) {
		word, n = word+" "+args[1], 2
	}
	table := commands()
	for i := range table {
		for _, p := range table[i].paths {
			if p == word {
				return &table[i], table[i].name(p), args[n:]
			}
		}
	}
	return nil, "", nil
}

// name returns the first of the command's spellings at the place of path: as a
// command by itself, or below the same group.
func (c *command) name(path string) string {
	group, _, below := strings.Cut(path, " ")
	for _, p := range c.paths {
		if g, _, b := strings.Cut(p, " "); b == below && (!b || g == group) {
			return p
		}
	}
	return path
}
