package pull

import (
	"context"
	"errors"
	"flag"
	"os"
	"slices"
	"strings"

	"github.com/isle-engine/isle/internal/container"
	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/image"
	"github.com/isle-engine/isle/internal/image/archive"
	"github.com/isle-engine/isle/internal/state"
	"github.com/isle-engine/isle/internal/storage"
)

// Finding is something that a check found.
type Finding struct {
	Kind    string `json:"kind"` // blob, layer, image, name, container; unused
	Subject string `json:"subject"`
	Problem string `json:"problem"`
	Done    string `json:"done,omitempty"` // what was done about it
	Failed  string `json:"failed,omitempty"`
}

// Checked is the result of a check.
type Checked struct {
	Blobs      int       `json:"blobs"`
	Layers     int       `json:"layers"`
	Unverified int       `json:"unverified"` // layers whose blob is not here
	Images     int       `json:"images"`
	Containers int       `json:"containers"`
	Findings   []Finding `json:"findings"`
	// Unused content that no image or container needs, and that a repair removes.
	Unused int   `json:"unused"`
	Freed  int64 `json:"freed"`
}

// CheckMain is the role `isled check [--repair]`.
func CheckMain(ctx context.Context, args []string) int {
	return role(ctx, args, func(fs *flag.FlagSet) func(context.Context, *Puller) (any, error) {
		repair := fs.Bool("repair", false, "take what is damaged out of use")
		how := fs.String("progress", string(Auto), "how to show progress: auto, tty, plain or none")
		return func(ctx context.Context, p *Puller) (any, error) {
			return p.Check(ctx, *repair, os.Stderr, Progress(*how))
		}
	})
}

// Check compares all that is in the stores with what it should be. With repair
// it takes out of use what is damaged, unpacks damaged layers again from their
// blobs, and removes what nobody needs.
func (p *Puller) Check(ctx context.Context, repair bool, out *os.File, how Progress) (_ *Checked, Err error) {
	defer func() { Err = interrupted(ctx, "check", Err) }()
	show := newDisplay(out, how)
	defer show.flush()
	k := &checker{p: p, repair: repair, res: &Checked{Findings: []Finding{}}, bad: map[string]bool{}, line: &line{d: show, ended: true}}
	if show.tty {
		k.line = show.add("check", "Reading")
	}
	containers, err := p.containers(k.res)
	if err != nil {
		return nil, err
	}
	blobs, images, faults, err := p.Images.Check(ctx, k.read)
	if err != nil {
		return nil, err
	}
	k.res.Blobs, k.res.Images = blobs, images
	for _, f := range faults {
		k.bad[f.Subject] = true
		k.found(Finding{Kind: f.Kind, Subject: f.Subject, Problem: f.Problem}, "removed", f.Repair)
	}
	need := map[string]bool{} // layers of containers
	for _, c := range containers {
		for _, l := range c.Image.Layers {
			need[l] = true
		}
	}
	if err := k.layers(ctx, need); err != nil {
		return nil, err
	}
	if err := k.images(containers); err != nil {
		return nil, err
	}
	return k.res, k.unused(need)
}

// checker is a check under way.
type checker struct {
	p      *Puller
	repair bool
	res    *Checked
	line   *line
	n      int64
	bad    map[string]bool // what is damaged, by its digest
}

func (k *checker) read(n int64) {
	k.n += n
	k.line.bar("Reading "+bytesText(k.n), 0, 0)
}

// found notes a finding and repairs it, if that is wanted and can be done.
func (k *checker) found(f Finding, done string, repair func() error) {
	if k.repair && repair != nil {
		if err := repair(); err != nil {
			f.Failed = err.Error()
		} else {
			f.Done = done
		}
	}
	k.res.Findings = append(k.res.Findings, f)
}

// containers reads the records of containers.
func (p *Puller) containers(res *Checked) ([]container.Record, error) {
	ids, err := state.IDs(p.Containers)
	if errors.Is(err, errs.NotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var all []container.Record
	for _, id := range ids {
		var rec container.Record
		err := state.ReadRecord(p.Containers+"/"+id, &rec)
		switch {
		case err == nil:
			all = append(all, rec)
		case errors.Is(err, errs.NotFound): // removed meanwhile, or being created
			continue
		default:
			res.Findings = append(res.Findings, Finding{Kind: "container", Subject: id, Problem: err.Error()})
		}
		res.Containers++
	}
	return all, nil
}

// layers compares the unpacked layers with their blobs.
func (k *checker) layers(ctx context.Context, need map[string]bool) error {
	layers, err := k.p.Layers.Layers()
	if err != nil {
		return err
	}
	slices.SortFunc(layers, func(a, b storage.LayerInfo) int { return strings.Compare(a.DiffID, b.DiffID) })
	blobs, err := k.blobs()
	if err != nil {
		return err
	}
	for _, info := range layers {
		k.res.Layers++
		digest := blobs[info.DiffID]
		problems, err := k.layer(ctx, info, digest)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			problems = append(problems, err.Error())
		}
		if len(problems) == 0 {
			continue
		}
		f := Finding{Kind: "layer", Subject: info.DiffID, Problem: strings.Join(problems, "; ")}
		switch {
		case digest != "":
			k.found(f, "unpacked again", func() error { return k.unpackAgain(ctx, info.DiffID, digest) })
		case need[info.DiffID]:
			k.found(f, "", nil) // a container may have it mounted
		default:
			k.found(f, "removed", func() error { return k.p.Layers.Drop(info.DiffID) })
		}
	}
	return nil
}

// blobs returns the blob of each layer that has a good one here.
func (k *checker) blobs() (map[string]string, error) {
	out := map[string]string{}
	list, err := k.p.Images.List()
	if errors.Is(err, errs.Corrupt) {
		return out, nil // told already; the layers can still be counted
	}
	if err != nil {
		return nil, err
	}
	for _, img := range list {
		for _, l := range img.Layers {
			if out[l.DiffID] == "" && !k.bad[l.Digest] && k.p.Images.HasBlob(l.Digest) {
				out[l.DiffID] = l.Digest
			}
		}
	}
	return out, nil
}

// layer says what is wrong with a layer. One without a blob there is nothing to
// compare with.
func (k *checker) layer(ctx context.Context, info storage.LayerInfo, digest string) ([]string, error) {
	path, err := k.p.Layers.Path(info.DiffID)
	if err != nil {
		return nil, err
	}
	if info.Created.IsZero() {
		return []string{"its record is damaged"}, nil
	}
	if digest == "" {
		k.res.Unverified++
		return nil, nil
	}
	blob, err := k.p.Images.OpenBlob(digest)
	if err != nil {
		return nil, err
	}
	defer blob.Close() //nolint:errcheck // read only; nothing to lose
	plain, _, err := archive.Decompress(blob)
	if err != nil {
		return nil, err
	}
	defer plain.Close() // its errors come with Read
	v := &verifier{noDevices: info.SkippedDevices > 0, noOwners: info.FoldedOwners > 0}
	got, problems, err := v.verify(ctx, path, plain, k.read)
	if err == nil && got != info.DiffID {
		problems = append(problems, "its blob unpacks to "+got)
	}
	return problems, err
}

// unpackAgain replaces a layer. Who has it mounted keeps the old files.
func (k *checker) unpackAgain(ctx context.Context, diffID, digest string) error {
	blob, err := k.p.Images.OpenBlob(digest)
	if err != nil {
		return err
	}
	defer blob.Close() //nolint:errcheck // read only; nothing to lose
	plain, _, err := archive.Decompress(blob)
	if err != nil {
		return err
	}
	defer plain.Close() // its errors come with Read
	staged, err := k.p.Layers.Stage(ctx, diffID, plain)
	if err != nil {
		return err
	}
	if err := k.p.Layers.Drop(diffID); err != nil && !errors.Is(err, errs.NotFound) {
		return errors.Join(err, staged.Discard())
	}
	return k.p.Layers.Commit(staged)
}

// images finds the images and containers whose layers are not there.
func (k *checker) images(containers []container.Record) error {
	list, err := k.p.Images.List()
	if errors.Is(err, errs.Corrupt) {
		return nil // told already
	}
	if err != nil {
		return err
	}
	for _, img := range list {
		for _, l := range img.Layers {
			if k.p.Layers.Has(l.DiffID) {
				continue
			}
			name := img.ID
			if len(img.Tags) > 0 {
				name = img.Tags[0]
			}
			k.found(Finding{Kind: "image", Subject: name, Problem: "its layer " + l.DiffID + " is missing"},
				"forgotten, so that it is pulled again when it is used next", func() error { return k.p.Images.Forget(img.ID) })
			break
		}
	}
	for _, c := range containers {
		for _, l := range c.Image.Layers {
			if !k.p.Layers.Has(l) {
				k.found(Finding{Kind: "container", Subject: c.Config.Name, Problem: "its layer " + l + " is missing; pull " + c.Config.Image + " again to bring it back"}, "", nil)
				break
			}
		}
	}
	return nil
}

// unused counts, and with repair removes, what nobody needs.
func (k *checker) unused(need map[string]bool) error {
	layers, err := k.p.Layers.Layers()
	if err != nil {
		return err
	}
	var ids []string
	for _, l := range layers {
		ids = append(ids, l.DiffID)
	}
	var freed int64
	keep := image.Keep{
		Layer: func(diffID string) bool { return need[diffID] },
		DropLayer: func(diffID string) error {
			if n, err := k.p.Layers.Size(diffID); err == nil {
				freed += n
			}
			return k.p.Layers.Drop(diffID)
		},
	}
	if !k.repair {
		did, err := k.p.Images.Orphans(ids, keep)
		if errors.Is(err, errs.Corrupt) {
			return nil // told already: what a damaged record needs is not known
		}
		k.res.Unused, k.res.Freed = did.Count, did.Bytes
		for _, d := range did.Layers {
			if n, err := k.p.Layers.Size(d); err == nil {
				k.res.Freed += n
			}
		}
		return err
	}
	did, err := k.p.Images.Collect(ids, keep)
	if err != nil {
		return err
	}
	k.res.Unused, k.res.Freed = did.Count, did.Bytes+freed
	_, err = k.p.Layers.Sweep() // and what dead unpackers have left
	return err
}
