package cli

import (
	"fmt"
	"strings"

	"github.com/isle-engine/isle/internal/engine"
	"github.com/isle-engine/isle/internal/errs"
)

// The shells' scripts are a few lines each: they ask `isle __complete WORD...`,
// where the last word is the one being typed, and get one candidate a line, with
// its explanation after a tab.
func cmdCompletion(c *call) func() error {
	return func() error {
		script := ""
		switch c.args[0] {
		case "bash":
			script = bashCompletion
		case "zsh":
			script = zshCompletion
		case "fish":
			script = fishCompletion
		default:
			return errs.New(errs.Invalid, "completion %q: want bash, zsh or fish", c.args[0])
		}
		_, err := c.stdout().WriteString(script)
		return err
	}
}

const bashCompletion = `# bash completion for isle: eval "$(isle completion bash)"
_isle() {
	local line=${COMP_LINE:0:COMP_POINT} words cur head IFS=$' \t\n'
	read -ra words <<< "$line"
	[[ $line == *[[:space:]] ]] && words+=("")
	cur=${words[-1]}
	IFS=$'\n'
	COMPREPLY=($(compgen -W "$(isle __complete "${words[@]:1}" 2>/dev/null | cut -f1)" -- "$cur"))
	if [ ${#COMPREPLY[@]} -eq 0 ]; then
		COMPREPLY=($(compgen -f -- "$cur"))
		return
	fi
	# For bash a word begins after each colon and each equals sign.
	head=${cur%"${cur##*[:=]}"}
	[ -n "$head" ] && COMPREPLY=("${COMPREPLY[@]#"$head"}")
	[[ ${#COMPREPLY[@]} -eq 1 && ${COMPREPLY[0]} == *[:=] ]] && compopt -o nospace
}
complete -o filenames -F _isle isle
`

const zshCompletion = `#compdef isle
# zsh completion for isle: eval "$(isle completion zsh)"
_isle() {
	local -a found shown
	local line
	for line in ${(f)"$(isle __complete ${words[2,CURRENT]} 2>/dev/null)"}; do
		found+=("${line%%$'\t'*}")
		shown+=("${line/$'\t'/  -- }")
	done
	if (( $#found )); then
		compadd -l -d shown -a found
	else
		_files
	fi
}
compdef _isle isle
`

const fishCompletion = `# fish completion for isle: isle completion fish | source
complete -c isle -f -a '(isle __complete (commandline -opc)[2..] (commandline -ct) 2>/dev/null)'
complete -c isle -n 'string match -qr "^[./~]" -- (commandline -ct)' -F
`

func cmdComplete(c *call) func() error {
	return func() error {
		words := c.args
		if len(words) == 0 {
			words = []string{""}
		}
		for _, s := range c.candidates(words[:len(words)-1], words[len(words)-1]) {
			fmt.Fprintln(c.stdout(), s)
		}
		return nil
	}
}

// candidates are the words that may stand at the place of word after before.
func (c *call) candidates(before []string, word string) []string {
	var g globals
	before, err := parseFlags(g.flags(), before, false)
	if err != nil {
		return nil
	}
	if len(before) == 0 {
		if strings.HasPrefix(word, "-") {
			return flagWords(g.flags(), word)
		}
		return commandWords(word)
	}
	cmd, path, rest := find(before)
	if cmd == nil {
		if isGroup(before[0]) && len(before) == 1 {
			var out []string
			for _, e := range groupCommands(before[0]) {
				out = append(out, candidate(e.name, e.short, word)...)
			}
			return out
		}
		return nil
	}
	sub := &call{app: c.app, cmd: cmd, path: path}
	cmd.setup(sub)
	if len(rest) > 0 {
		if f := openFlag(sub.flags, rest[len(rest)-1]); f != nil {
			return c.flagValues(f, word)
		}
	}
	args, err := parseFlags(sub.flags, rest, !cmd.wordsEndFlags)
	if err != nil {
		return nil
	}
	if strings.HasPrefix(word, "-") && (!cmd.wordsEndFlags || len(args) == 0) {
		return flagWords(sub.flags, word)
	}
	return c.argWords(cmd, len(args), word)
}

func candidate(name, help, word string) []string {
	if !strings.HasPrefix(name, word) {
		return nil
	}
	help, _, _ = strings.Cut(help, "\n")
	return []string{name + "\t" + help}
}

func commandWords(word string) []string {
	var out []string
	table := commands()
	for i := range table {
		if table[i].group != "" {
			out = append(out, candidate(table[i].paths[0], table[i].short, word)...)
		}
	}
	for _, g := range groups() {
		out = append(out, candidate(g.name, g.short, word)...)
	}
	return out
}

func flagWords(flags []flag, word string) []string {
	var out []string
	for _, f := range sortedFlags(flags) {
		out = append(out, candidate("--"+f.name, f.help, word)...)
		if f.short != 0 && word == "-" {
			out = append(out, candidate("-"+string(rune(f.short)), f.help, word)...)
		}
	}
	return append(out, candidate("--help", "Show this command's help", word)...)
}

// openFlag returns the flag that last leaves without its argument.
func openFlag(flags []flag, last string) *flag {
	var f *flag
	switch {
	case strings.HasPrefix(last, "--"):
		f = findLong(flags, last[2:])
	case len(last) == 2 && last[0] == '-':
		f = findShort(flags, last[1])
	}
	if f == nil || f.v.kind() == "" {
		return nil
	}
	return f
}

// flagValues are what may follow a flag.
func (c *call) flagValues(f *flag, word string) []string {
	fixed := map[string]string{
		"format": "json table", "pull": "always missing never", "restart": "no always on-failure unless-stopped", "type": "container image",
		"network": "none host container:", "pid": "host private container:", "uts": "host private", "userns": "host private auto keep-id",
		"cgroupns": "host private", "ipc": "host private shareable none container:", "log-driver": "json-file local journald none", "attach": "stdin stdout stderr",
		"security-opt": "seccomp= apparmor= label= no-new-privileges mask= unmask=ALL systempaths=unconfined",
	}
	var out []string
	for v := range strings.FieldsSeq(fixed[f.name]) {
		out = append(out, candidate(v, "", word)...)
	}
	switch f.name {
	case "volume":
		for _, w := range c.volumeWords(word) {
			name, help, _ := strings.Cut(w, "\t")
			out = append(out, name+":\t"+help)
		}
	case "volumes-from":
		out = append(out, c.containerWords(word, true)...)
	case "network", "pid", "ipc":
		if f.name == "network" {
			out = append(out, c.networkWords(word)...)
		}
		if name, ok := strings.CutPrefix(word, "container:"); ok {
			out = nil
			for _, n := range c.containerWords(name, false) {
				out = append(out, "container:"+n)
			}
		}
	}
	return out
}

// argKinds says what names the arguments of commands are: one letter an
// argument, the last for all that follow. c: a container; r: a running one;
// i: an image; n: a network; v: a volume; -: nothing that is known.
func argKinds(cmd string) string {
	kinds := map[string]string{
		"attach": "r", "commit": "c-", "diff": "c", "exec": "r-", "export": "c", "kill": "r", "logs": "c", "pause": "r", "port": "c-", "rename": "c-",
		"restart": "c", "rm": "c", "start": "c", "stats": "r", "stop": "r", "top": "r-", "unpause": "r", "update": "c", "wait": "r", "container inspect": "c",
		"create": "i-", "run": "i-", "history": "i", "images": "i", "pull": "i", "push": "i", "rmi": "i", "save": "i", "tag": "i", "image inspect": "i",
		"network connect": "nc", "network disconnect": "nc", "network inspect": "n", "network rm": "n", "volume inspect": "v", "volume rm": "v", "volume export": "v", "volume import": "v-",
		"plan": "i-", "explain": "c", "why": "r-", "oci": "-",
	}
	return kinds[cmd]
}

// argWords are the names that a command's next argument may be.
func (c *call) argWords(cmd *command, n int, word string) []string {
	if cmd.max >= 0 && n >= cmd.max {
		return nil
	}
	switch cmd.paths[0] {
	case "inspect":
		return append(append(append(c.containerWords(word, true), c.imageWords(word)...), c.networkWords(word)...), c.volumeWords(word)...)
	case "cp":
		if strings.ContainsAny(word, "/.") {
			return nil // a path; the shell knows files
		}
		var out []string
		for _, w := range c.containerWords(word, true) {
			name, help, _ := strings.Cut(w, "\t")
			out = append(out, name+":\t"+help)
		}
		return out
	case "completion":
		return append(append(candidate("bash", "", word), candidate("zsh", "", word)...), candidate("fish", "", word)...)
	case "help":
		return commandWords(word)
	}
	kinds := argKinds(cmd.paths[0])
	if kinds == "" {
		return nil
	}
	switch kinds[min(n, len(kinds)-1)] {
	case 'c':
		return c.containerWords(word, true)
	case 'r':
		return c.containerWords(word, false)
	case 'i':
		return c.imageWords(word)
	case 'n':
		return c.networkWords(word)
	case 'v':
		return c.volumeWords(word)
	}
	return nil
}

func (c *call) networkWords(word string) []string {
	eng, err := c.networker()
	if err != nil {
		return nil
	}
	list, err := eng.Networks(c.ctx, nil)
	if err != nil {
		return nil
	}
	var out []string
	for _, n := range list {
		out = append(out, candidate(visible(n.Name), visible(n.Driver), word)...)
	}
	return out
}

func (c *call) volumeWords(word string) []string {
	eng, err := c.volumer()
	if err != nil {
		return nil
	}
	list, err := eng.Volumes(c.ctx, nil)
	if err != nil {
		return nil
	}
	var out []string
	for i := range list {
		out = append(out, candidate(visible(list[i].Name), "local", word)...)
	}
	return out
}

func (c *call) containerWords(word string, all bool) []string {
	eng, err := c.engine()
	if err != nil {
		return nil
	}
	list, err := eng.List(c.ctx, engine.ListOptions{All: all})
	if err != nil {
		return nil
	}
	var out []string
	for i := range list {
		out = append(out, candidate(visible(list[i].Config.Name), visible(list[i].Config.Image), word)...)
	}
	return out
}

func (c *call) imageWords(word string) []string {
	eng, err := c.engine()
	if err != nil {
		return nil
	}
	list, err := eng.Images(c.ctx, nil, false)
	if err != nil {
		return nil
	}
	var out []string
	for i := range list {
		for _, t := range list[i].Tags {
			out = append(out, candidate(visible(t), shortID(list[i].ID), word)...)
		}
	}
	return out
}
