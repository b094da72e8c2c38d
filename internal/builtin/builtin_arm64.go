package builtin

import "embed"

//go:embed data/arm64
var data embed.FS
