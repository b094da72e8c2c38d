// Command id prints the ids of its process with their names; id(1).
//
// Usage: id [-u | -g | -G] [-n]
package main

import (
	"flag"
	"fmt"
	"os"
	"os/user"
	"slices"
	"strconv"
	"strings"
)

func main() {
	u := flag.Bool("u", false, "only the effective user")
	g := flag.Bool("g", false, "only the effective group")
	all := flag.Bool("G", false, "only the groups")
	name := flag.Bool("n", false, "names in place of numbers")
	flag.CommandLine.SetOutput(os.Stderr)
	// -un and -gn in one word, as scripts write them.
	args := slices.Clone(os.Args[1:])
	for i, a := range args {
		if len(a) == 3 && a[0] == '-' && a[2] == 'n' {
			args = append(slices.Replace(args, i, i+1, a[:2]), "-n")
		}
	}
	if err := flag.CommandLine.Parse(args); err != nil {
		os.Exit(2)
	}
	groups, err := os.Getgroups()
	if err != nil {
		fmt.Fprintln(os.Stderr, "id:", err)
		os.Exit(1)
	}
	gid := os.Getegid()
	if !slices.Contains(groups, gid) {
		groups = slices.Insert(groups, 0, gid)
	}
	short := func(id int, named string) string {
		if *name && named != "" {
			return named
		}
		return strconv.Itoa(id)
	}
	long := func(id int, named string) string {
		if named == "" {
			return strconv.Itoa(id)
		}
		return fmt.Sprintf("%d(%s)", id, named)
	}
	list := func(show func(int, string) string) []string {
		var out []string
		for _, id := range groups {
			out = append(out, show(id, groupName(id)))
		}
		return out
	}
	uid := os.Geteuid()
	switch {
	case *u:
		fmt.Println(short(uid, userName(uid)))
	case *g:
		fmt.Println(short(gid, groupName(gid)))
	case *all:
		fmt.Println(strings.Join(list(short), " "))
	default:
		fmt.Printf("uid=%s gid=%s groups=%s\n", long(uid, userName(uid)), long(gid, groupName(gid)), strings.Join(list(long), ","))
	}
}

func userName(id int) string {
	if u, err := user.LookupId(strconv.Itoa(id)); err == nil {
		return u.Username
	}
	return ""
}

func groupName(id int) string {
	if g, err := user.LookupGroupId(strconv.Itoa(id)); err == nil {
		return g.Name
	}
	return ""
}
