//go:build !amd64

package main

// otherABIs: the other ABI of arm64 is 32-bit ARM, which needs another binary.
func otherABIs() {}
