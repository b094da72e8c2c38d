package image

import (
	"time"

	"github.com/isle-engine/isle/internal/container"
)

// Image is an image in the store, resolved from a name or an id.
//
// Resolve by name fills only what a container needs to start: ID, Ref,
// Manifest, OS, Arch, Variant, the layers' diff ids and Config. Inspect and
// List fill everything.
type Image struct {
	ID       string                `json:"id"`       // sha256:… of the configuration blob (Docker's image ID)
	Ref      string                `json:"-"`        // the normalized name it was resolved by; "" when by id
	Tags     []string              `json:"-"`        // all its names, as docker.io-shortened "repo:tag"
	Digests  []string              `json:"-"`        // "repo@sha256:…"
	Manifest string                `json:"manifest"` // digest of the platform's manifest blob
	Layers   []Layer               `json:"layers"`   // lowest first
	Created  time.Time             `json:"created,omitzero"`
	Stored   time.Time             `json:"stored,omitzero"` // when it came into this store
	Size     int64                 `json:"size"`            // bytes unpacked, sum of layers
	OS       string                `json:"os"`
	Arch     string                `json:"arch"`
	Variant  string                `json:"variant,omitempty"`
	Author   string                `json:"author,omitempty"`
	Comment  string                `json:"comment,omitempty"`
	History  []History             `json:"history,omitempty"`
	Config   container.ImageConfig `json:"config"`
}

// Layer is one layer of an image.
type Layer struct {
	DiffID    string `json:"diffId"`           // digest of the uncompressed tar
	Digest    string `json:"digest,omitempty"` // digest of the blob as fetched
	MediaType string `json:"mediaType,omitempty"`
	Size      int64  `json:"size,omitempty"`     // of the blob
	Unpacked  int64  `json:"unpacked,omitempty"` // bytes on disk
}

// History is one line of an image's history.
type History struct {
	Created    time.Time `json:"created,omitzero"`
	CreatedBy  string    `json:"created_by,omitempty"`
	Author     string    `json:"author,omitempty"`
	Comment    string    `json:"comment,omitempty"`
	EmptyLayer bool      `json:"empty_layer,omitempty"`
}

// Platform returns os/arch[/variant].
func (i *Image) Platform() Platform { return Platform{i.OS, i.Arch, i.Variant} }

// DiffIDs returns the layers' diff ids, lowest first.
func (i *Image) DiffIDs() []string {
	ids := make([]string, len(i.Layers))
	for n := range i.Layers {
		ids[n] = i.Layers[n].DiffID
	}
	return ids
}

// ForContainer returns what a container keeps of the image.
func (i *Image) ForContainer() container.Image {
	return container.Image{ID: i.ID, Ref: i.Ref, Layers: i.DiffIDs(), Config: i.Config}
}
