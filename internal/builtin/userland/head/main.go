// Command head prints the first lines or bytes of files; head(1).
//
// Usage: head [-n LINES | -LINES | -c BYTES] [FILE]...
package main

import (
	"bufio"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
)

func main() {
	lines := flag.Int("n", 10, "lines")
	count := flag.Int64("c", -1, "bytes")
	args := os.Args[1:]
	if len(args) > 0 && len(args[0]) > 1 && args[0][0] == '-' {
		if n, err := strconv.Atoi(args[0][1:]); err == nil {
			*lines, args = n, args[1:]
		}
	}
	if err := flag.CommandLine.Parse(args); err != nil {
		os.Exit(2)
	}
	files := flag.Args()
	if len(files) == 0 {
		files = []string{"-"}
	}
	code := 0
	for i, name := range files {
		if len(files) > 1 {
			fmt.Printf("%.*s==> %s <==\n", min(i, 1), "\n", name)
		}
		if err := head(name, *lines, *count); err != nil {
			fmt.Fprintln(os.Stderr, "head:", err)
			code = 1
		}
	}
	os.Exit(code)
}

func head(name string, lines int, count int64) error {
	f := os.Stdin
	if name != "-" {
		var err error
		if f, err = os.Open(name); err != nil {
			return err
		}
		defer f.Close()
	}
	if count >= 0 {
		_, err := io.CopyN(os.Stdout, f, count)
		if errors.Is(err, io.EOF) {
			return nil
		}
		return err
	}
	r := bufio.NewReader(f)
	for range lines {
		line, err := r.ReadBytes('\n')
		if _, err := os.Stdout.Write(line); err != nil {
			return err
		}
		if err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
	}
	return nil
}
