package image

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/state"
)

// ManifestList is an index that the user puts together, to be pushed under Name.
type ManifestList struct {
	Name    string      `json:"name"` // normalized
	Entries []ListEntry `json:"entries"`
}

// ListEntry is a manifest of a list. Its Descriptor has the platform.
type ListEntry struct {
	Ref        string     `json:"ref"` // normalized: where it was found
	Descriptor Descriptor `json:"descriptor"`
	OSVersion  string     `json:"osVersion,omitempty"`
	OSFeatures []string   `json:"osFeatures,omitempty"`
	Manifest   []byte     `json:"manifest"`
}

// DescribedPlatform is all that an index may say of a platform, in the order of
// Docker's client.
type DescribedPlatform struct {
	Arch       string   `json:"architecture"`
	OS         string   `json:"os"`
	OSVersion  string   `json:"os.version,omitempty"`
	OSFeatures []string `json:"os.features,omitempty"`
	Variant    string   `json:"variant,omitempty"`
}

// Described returns what the list says of the entry's platform, nil if nothing.
func (e *ListEntry) Described() *DescribedPlatform {
	p := e.Descriptor.Platform
	if p == nil {
		return nil
	}
	return &DescribedPlatform{p.Arch, p.OS, e.OSVersion, e.OSFeatures, p.Variant}
}

// IndexOf returns the index that a list becomes: an OCI index if all its
// manifests are OCI's, else Docker's manifest list.
func IndexOf(l *ManifestList) ([]byte, error) {
	type descriptor struct {
		MediaType string             `json:"mediaType"`
		Size      int64              `json:"size"`
		Digest    string             `json:"digest"`
		Platform  *DescribedPlatform `json:"platform"`
	}
	ix := struct {
		SchemaVersion int          `json:"schemaVersion"`
		MediaType     string       `json:"mediaType"`
		Manifests     []descriptor `json:"manifests"`
	}{2, TypeOCIIndex, []descriptor{}}
	for i := range l.Entries {
		e := &l.Entries[i]
		d := e.Descriptor
		if d.Platform == nil || d.Platform.OS == "" || d.Platform.Arch == "" {
			return nil, errs.New(errs.Invalid, "manifest %s must have an OS and Architecture to be pushed to a registry", e.Ref)
		}
		if d.MediaType != TypeOCIManifest {
			ix.MediaType = TypeDockerList
		}
		ix.Manifests = append(ix.Manifests, descriptor{d.MediaType, d.Size, d.Digest, e.Described()})
	}
	return json.MarshalIndent(ix, "", "   ") // as Docker's client writes it
}

func (s *Store) listFile(n Name) string { return s.dir + "/lists/" + escapeName(n.String()) }

// ReadList returns a manifest list. The error is NotFound if there is none.
func (s *Store) ReadList(n Name) (*ManifestList, error) {
	l := new(ManifestList)
	err := state.ReadJSON(s.listFile(n), l)
	if errors.Is(err, fs.ErrNotExist) || err == nil && l.Name != n.String() {
		return nil, errs.New(errs.NotFound, "No such manifest: %s", n.Familiar())
	}
	if err != nil {
		return nil, err
	}
	return l, nil
}

// WriteList keeps a manifest list under its name.
func (s *Store) WriteList(l *ManifestList) (Err error) {
	n, err := ParseName(l.Name)
	if err != nil {
		return err
	}
	lock, err := s.lock()
	if err != nil {
		return err
	}
	defer func() { Err = errors.Join(Err, lock.Close()) }()
	if err := os.MkdirAll(s.dir+"/lists", 0o700); err != nil {
		return err
	}
	return state.WriteJSON(s.listFile(n), l, true)
}

// RemoveList removes a manifest list. The error is NotFound if there is none.
func (s *Store) RemoveList(n Name) (Err error) {
	lock, err := s.lock()
	if err != nil {
		return err
	}
	defer func() { Err = errors.Join(Err, lock.Close()) }()
	err = os.Remove(s.listFile(n))
	if errors.Is(err, fs.ErrNotExist) {
		return errs.New(errs.NotFound, "No such manifest: %s", n.Familiar())
	}
	return err
}
