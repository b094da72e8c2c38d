// Command env prints its environment, or runs a command with another one; env(1).
//
// Usage: env [-i] [-u NAME]... [NAME=VALUE]... [COMMAND [ARG]...]
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

func main() {
	code, err := env(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "env:", err)
	}
	os.Exit(code)
}

func env(args []string) (int, error) {
	for len(args) > 0 && strings.HasPrefix(args[0], "-") {
		switch {
		case args[0] == "--":
			args = args[1:]
		case args[0] == "-i" || args[0] == "-":
			os.Clearenv()
			args = args[1:]
			continue
		case args[0] == "-u" && len(args) > 1:
			if err := os.Unsetenv(args[1]); err != nil {
				return 125, err
			}
			args = args[2:]
			continue
		default:
			return 125, fmt.Errorf("option %s: not known", args[0])
		}
		break
	}
	for len(args) > 0 {
		k, v, ok := strings.Cut(args[0], "=")
		if !ok {
			break
		}
		if err := os.Setenv(k, v); err != nil {
			return 125, err
		}
		args = args[1:]
	}
	if len(args) == 0 {
		for _, kv := range os.Environ() {
			fmt.Println(kv)
		}
		return 0, nil
	}
	path, err := exec.LookPath(args[0])
	if err == nil {
		err = syscall.Exec(path, args, os.Environ())
	}
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
		return 127, fmt.Errorf("%s: not found", args[0])
	}
	return 126, fmt.Errorf("%s: %w", args[0], err)
}
