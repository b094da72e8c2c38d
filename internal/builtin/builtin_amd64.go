package builtin

import "embed"

//go:embed data/amd64
var data embed.FS
