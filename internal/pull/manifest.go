package pull

import (
	"context"
	"encoding/json"
	"flag"
	"io"

	"github.com/isle-engine/isle/internal/errs"
	"github.com/isle-engine/isle/internal/image"
	"github.com/isle-engine/isle/internal/image/registry"
)

// ManifestMain is the role `isled manifest create|inspect|push [options] …`.
func ManifestMain(ctx context.Context, args []string) int {
	verb := ""
	if len(args) > 0 {
		verb, args = args[0], args[1:]
	}
	return role(ctx, args, func(fs *flag.FlagSet) func(context.Context, *Puller) (any, error) {
		amend := fs.Bool("amend", false, "change a list that is there")
		insecure := fs.Bool("insecure", false, "do without verified TLS")
		purge := fs.Bool("purge", false, "remove the local list after the push")
		return func(ctx context.Context, p *Puller) (_ any, Err error) {
			defer func() { Err = interrupted(ctx, "manifest "+verb, Err) }()
			names, err := parseNames(fs.Args())
			if err != nil {
				return nil, err
			}
			if *insecure {
				for _, n := range names {
					p.Client.AllowInsecure(n.Domain)
				}
			}
			switch {
			case verb == "create" && len(names) > 1:
				l, err := p.CreateList(ctx, names[0], names[1:], *amend)
				if err != nil {
					return nil, err
				}
				return answerName{l.Name}, nil
			case verb == "inspect" && len(names) == 1:
				return p.InspectManifest(ctx, names[0])
			case verb == "push" && len(names) == 1:
				digest, err := p.PushList(ctx, names[0])
				if err == nil && *purge {
					err = p.Images.RemoveList(names[0])
				}
				return Pushed{Name: names[0].String(), Digest: digest}, err
			}
			return nil, errs.New(errs.Invalid, "manifest %s: wrong number of arguments", verb)
		}
	})
}

type answerName struct {
	Name string `json:"name"`
}

func parseNames(refs []string) ([]image.Name, error) {
	var out []image.Name
	for _, r := range refs {
		n, err := image.ParseName(r)
		if err != nil {
			return nil, err
		}
		out = append(out, n)
	}
	return out, nil
}

// CreateList makes a manifest list of manifests that are at registries, or adds
// to the one that is there.
func (p *Puller) CreateList(ctx context.Context, name image.Name, from []image.Name, amend bool) (*image.ManifestList, error) {
	if name.Digest != "" {
		return nil, errs.New(errs.Invalid, "manifest list %q: cannot have a digest", name.Familiar())
	}
	l := &image.ManifestList{Name: name.String()}
	if old, err := p.Images.ReadList(name); err == nil {
		if !amend {
			return nil, errs.New(errs.Exists, "refusing to amend an existing manifest list with no --amend flag")
		}
		l = old
	} else if errs.KindOf(err) != errs.NotFound {
		return nil, err
	}
	for _, n := range from {
		e, err := p.entry(ctx, n)
		if err != nil {
			return nil, err
		}
		replaced := false
		for i := range l.Entries {
			if l.Entries[i].Ref == e.Ref {
				l.Entries[i], replaced = e, true
			}
		}
		if !replaced {
			l.Entries = append(l.Entries, e)
		}
	}
	return l, p.Images.WriteList(l)
}

// entry fetches what a list says of an image.
func (p *Puller) entry(ctx context.Context, n image.Name) (e image.ListEntry, err error) {
	remote, err := p.Client.Resolve(ctx, n)
	if err != nil {
		return e, err
	}
	man, index, err := image.ParseManifest(remote.Content, remote.MediaType)
	if err != nil {
		return e, err
	}
	if index != nil {
		return e, errs.New(errs.Invalid, "%s is a manifest list", n.Familiar())
	}
	config, err := p.config(ctx, remote, man.Config)
	if err != nil {
		return e, err
	}
	var pf struct {
		image.Platform
		OSVersion  string   `json:"os.version"`
		OSFeatures []string `json:"os.features"`
	}
	if err := json.Unmarshal(config, &pf); err != nil {
		return e, errs.New(errs.Corrupt, "image configuration %s: %w", man.Config.Digest, err)
	}
	return image.ListEntry{
		Ref:        n.String(),
		Descriptor: image.Descriptor{MediaType: man.MediaType, Digest: remote.Digest, Size: int64(len(remote.Content)), Platform: &pf.Platform},
		OSVersion:  pf.OSVersion, OSFeatures: pf.OSFeatures, Manifest: remote.Content,
	}, nil
}

// Inspected is a manifest or index at a registry.
type Inspected struct {
	Name      string            `json:"name"`
	MediaType string            `json:"mediaType"`
	Content   []byte            `json:"content"`
	Digest    string            `json:"digest"`
	Entries   []image.ListEntry `json:"entries"` // of an index, each with its manifest; else the one
}

// InspectManifest fetches what name means at its registry.
func (p *Puller) InspectManifest(ctx context.Context, name image.Name) (*Inspected, error) {
	remote, err := p.Client.Resolve(ctx, name)
	if err != nil {
		return nil, err
	}
	man, index, err := image.ParseManifest(remote.Content, remote.MediaType)
	if err != nil {
		return nil, err
	}
	in := &Inspected{Name: name.String(), Content: remote.Content, Digest: remote.Digest}
	if man != nil {
		in.MediaType = man.MediaType
		e, err := p.entry(ctx, name.WithDigest(remote.Digest))
		e.Ref = name.String()
		in.Entries = append(in.Entries, e)
		return in, err
	}
	in.MediaType = index.MediaType
	for _, d := range index.Manifests {
		data, err := remote.Manifest(ctx, d)
		if err != nil {
			return nil, err
		}
		in.Entries = append(in.Entries, image.ListEntry{Ref: withBoth(name, d.Digest), Descriptor: d, Manifest: data})
	}
	return in, nil
}

// withBoth is how Docker's client names a manifest of an index: by the tag that
// it was found by, too.
func withBoth(name image.Name, digest string) string {
	if name.Digest != "" {
		return name.WithDigest(digest).String()
	}
	return name.String() + "@" + digest
}

// PushList pushes a manifest list, with those of its manifests that are in other
// repositories of the same registry, and returns its digest.
func (p *Puller) PushList(ctx context.Context, name image.Name) (string, error) {
	l, err := p.Images.ReadList(name)
	if err != nil {
		return "", err
	}
	target, err := p.Client.Target(ctx, name)
	if err != nil {
		return "", err
	}
	for _, e := range l.Entries {
		from, err := image.ParseName(e.Ref)
		if err != nil {
			return "", err
		}
		if from.Domain != name.Domain {
			return "", errs.New(errs.Invalid, "cannot use source images from a different registry than the target image: %s != %s", from.Domain, name.Domain)
		}
		if from.Path == name.Path {
			continue
		}
		if err := p.copyManifest(ctx, target, e, from); err != nil {
			return "", err
		}
	}
	data, err := image.IndexOf(l)
	if err != nil {
		return "", err
	}
	_, ix, err := image.ParseManifest(data, "")
	if err != nil {
		return "", err
	}
	return image.DigestOf(data), target.PutManifest(ctx, name.Tag, ix.MediaType, data)
}

// copyManifest makes an image of another repository one of target's.
func (p *Puller) copyManifest(ctx context.Context, target *registry.Target, e image.ListEntry, from image.Name) error {
	man, _, err := image.ParseManifest(e.Manifest, e.Descriptor.MediaType)
	if err != nil {
		return err
	}
	for _, d := range append([]image.Descriptor{man.Config}, man.Layers...) {
		has, err := target.Has(ctx, d.Digest)
		if err == nil && !has {
			has, err = target.Mount(ctx, d.Digest, from.Path)
		}
		if err == nil && !has {
			err = p.copyBlob(ctx, target, d, from.WithDigest(e.Descriptor.Digest))
		}
		if err != nil {
			return err
		}
	}
	return target.PutManifest(ctx, e.Descriptor.Digest, man.MediaType, e.Manifest)
}

// copyBlob sends a blob that a registry would not mount.
func (p *Puller) copyBlob(ctx context.Context, target *registry.Target, d image.Descriptor, from image.Name) error {
	remote, err := p.Client.Resolve(ctx, from)
	if err != nil {
		return err
	}
	return target.Upload(ctx, d, func(offset int64) (io.ReadCloser, error) { return remote.Blob(ctx, d, offset) }, func(int64) {})
}
