package engine

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/image"
	"github.com/isle-engine/isle/internal/storage"
)

// Usage is what a user's containers, images and volumes take on disk, counted in
// blocks from the directories themselves: what no record knows of is in it, too.
type Usage struct {
	Images     []ImageUsage
	Containers []Container // SizeRw is all that its directory takes
	Volumes    []Volume
	ImagesSize int64 // of all blobs and unpacked layers
	// ImagesInUse is the part of ImagesSize that images with containers need.
	ImagesInUse int64
}

// ImageUsage is an image with what it shares.
type ImageUsage struct {
	image.Image
	Shared     int64 // bytes of the layers that another image has, too
	Containers int
}

// Usage measures.
func (e *Engine) Usage(ctx context.Context) (*Usage, error) {
	images, layers := e.env.Images()+"/blobs/sha256", e.env.Layers()
	sizes, err := e.sizesOf(images, layers, e.env.Containers(), e.env.Volumes())
	if err != nil {
		return nil, err
	}
	u := new(Usage)
	if u.Containers, err = e.List(ctx, ListOptions{All: true}); err != nil {
		return nil, err
	}
	uses := map[string]int{}
	need := map[string]bool{} // hex digits of digests
	for i := range u.Containers {
		c := &u.Containers[i]
		c.SizeRw = sizes[e.env.Containers()][c.ID]
		c.SizeRootFs = c.SizeRw
		for _, l := range c.Image.Layers {
			need[hexOf(l)] = true
			c.SizeRootFs += sizes[layers][hexOf(l)]
		}
		uses[c.Image.ID]++
	}
	list, err := e.images.List()
	if err != nil && !errors.Is(err, errs.NotFound) {
		return nil, err
	}
	users := map[string]int{} // images by layer
	for i := range list {
		for _, l := range uniqueLayers(&list[i]) {
			users[l.DiffID]++
		}
		if uses[list[i].ID] > 0 {
			need[hexOf(list[i].ID)], need[hexOf(list[i].Manifest)] = true, true
			for _, l := range list[i].Layers {
				need[hexOf(l.DiffID)], need[hexOf(l.Digest)] = true, true
			}
		}
	}
	for i := range list {
		one := ImageUsage{Image: list[i], Containers: uses[list[i].ID]}
		for _, l := range uniqueLayers(&list[i]) {
			if users[l.DiffID] > 1 {
				one.Shared += l.Unpacked
			}
		}
		u.Images = append(u.Images, one)
	}
	for _, dir := range []string{images, layers} {
		for name, n := range sizes[dir] {
			if strings.HasPrefix(name, ".empty") {
				continue // isle's own, of no image
			}
			u.ImagesSize += n
			if need[name] {
				u.ImagesInUse += n
			}
		}
	}
	if u.Volumes, err = e.Volumes(ctx, nil); err != nil {
		return nil, err
	}
	for i := range u.Volumes {
		u.Volumes[i].Size = sizes[e.env.Volumes()][u.Volumes[i].Name]
	}
	return u, nil
}

// uniqueLayers returns an image's layers, each once.
func uniqueLayers(img *image.Image) []image.Layer {
	var out []image.Layer
	for _, l := range img.Layers {
		if !slices.ContainsFunc(out, func(o image.Layer) bool { return o.DiffID == l.DiffID }) {
			out = append(out, l)
		}
	}
	return out
}

// hexOf returns the digits of a digest, by which its content is called on disk.
func hexOf(digest string) string {
	const prefix = "sha256:"
	if len(digest) > len(prefix) && digest[:len(prefix)] == prefix {
		return digest[len(prefix):]
	}
	return digest
}

// sizesOf measures what is in directories: what each of their entries takes,
// with all below it. It is done with the ids of the user's user namespace, as
// containers may have closed their directories.
func (e *Engine) sizesOf(dirs ...string) (map[string]map[string]int64, error) {
	if !e.env.Rootless {
		return measure(dirs)
	}
	out, err := e.joined("/proc/self/exe", append([]string{"isle-userns", workSizes}, dirs...), os.Stderr)
	if err != nil {
		return nil, err
	}
	var answer sizesAnswer
	if err := json.Unmarshal(out, &answer); err != nil {
		return nil, errs.New(errs.Corrupt, "answer of %s: %w", workSizes, err)
	}
	return answer.Sizes, answer.Error.Err()
}

// treeSize measures one directory: in this process where that can be, else with
// the ids of the user's user namespace.
func (e *Engine) treeSize(dir string) (int64, error) {
	n, _, err := storage.TreeSize(dir)
	if err == nil || !e.env.Rootless || !errors.Is(err, fs.ErrPermission) {
		return n, err
	}
	parent, name := filepath.Split(dir)
	sizes, err := e.sizesOf(parent)
	return sizes[parent][name], err
}

type sizesAnswer struct {
	Sizes map[string]map[string]int64 `json:"sizes"`
	Error *errs.Wire                  `json:"error,omitempty"`
}

// sizesMain is sizesOf inside.
func sizesMain(dirs []string) int {
	sizes, err := measure(dirs)
	answer := sizesAnswer{Sizes: sizes}
	if err != nil {
		answer.Error = errs.ToWire(err)
	}
	if err := json.NewEncoder(os.Stdout).Encode(answer); err != nil {
		return 2
	}
	return 0
}

func measure(dirs []string) (map[string]map[string]int64, error) {
	out := map[string]map[string]int64{}
	for _, dir := range dirs {
		entries, err := os.ReadDir(dir)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		out[dir] = map[string]int64{}
		for _, ent := range entries {
			n, err := sizeOf(filepath.Join(dir, ent.Name()), ent.IsDir())
			if errors.Is(err, fs.ErrNotExist) {
				continue // removed meanwhile
			}
			if err != nil {
				return nil, err
			}
			out[dir][ent.Name()] = n
		}
	}
	return out, nil
}

func sizeOf(path string, isDir bool) (int64, error) {
	if isDir {
		n, _, err := storage.TreeSize(path)
		return n, err
	}
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		return 0, &fs.PathError{Op: "stat", Path: path, Err: err}
	}
	return st.Blocks * 512, nil
}
