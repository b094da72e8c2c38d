// Package userland is the source of the built-in image's commands: its own sh,
// ps, env, id and head below, and those of u-root that build.sh names. It is a module of
// its own, so that none of this is a dependency of isle.
package userland
