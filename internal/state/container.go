package state

import (
	"path/filepath"
)

// Files of a container's directory.
const (
	RecordFile = "config.json" // container.Record
	StateFile  = "state.json"  // container.State
)

// ReadRecord fills rec, a *container.Record, from a container's directory.
// (The parameter is of type any because packages of one row do not import one
// another.)
func ReadRecord(dir string, rec any) error { return ReadJSON(filepath.Join(dir, RecordFile), rec) }

// WriteRecord replaces the record of a container's directory.
func WriteRecord(dir string, rec any, durable bool) error {
	return WriteJSON(filepath.Join(dir, RecordFile), rec, durable)
}

// ReadState fills st, a *container.State, from a container's directory.
func ReadState(dir string, st any) error { return ReadJSON(filepath.Join(dir, StateFile), st) }

// WriteState replaces the state of a container's directory.
func WriteState(dir string, st any, durable bool) error {
	return WriteJSON(filepath.Join(dir, StateFile), st, durable)
}

// IDs returns the ids of all containers, unsorted.
func IDs(containersDir string) ([]string, error) {
	names, err := readNames(containersDir)
	if err != nil {
		return nil, err
	}
	ids := names[:0]
	for _, n := range names {
		if IsID(n) {
			ids = append(ids, n)
		}
	}
	return ids, nil
}
