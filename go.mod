module github.com/isle-engine/isle

go 1.26
