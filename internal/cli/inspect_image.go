package cli

import "github.com/isle-engine/isle/internal/image"

// inspectImage shows an image as Docker's API does.
func inspectImage(img *image.Image) *imageJSON {
	c := &img.Config
	return &imageJSON{
		ID:           img.ID,
		RepoTags:     nonNil(img.Tags),
		RepoDigests:  nonNil(img.Digests),
		Comment:      img.Comment,
		Created:      stamp(img.Created),
		Author:       img.Author,
		Architecture: img.Arch,
		Variant:      img.Variant,
		Os:           img.OS,
		Size:         img.Size,
		GraphDriver:  graphDriver{Name: "overlay2"},
		RootFS:       rootFSJSON{"layers", img.DiffIDs()},
		Metadata:     metadataJSON{stamp(img.Stored)},
		Config: &imageConfigJSON{
			User:         c.User,
			ExposedPorts: c.Expose,
			Env:          c.Env,
			Entrypoint:   c.Entrypoint,
			Cmd:          c.Cmd,
			Volumes:      c.Volumes,
			WorkingDir:   c.WorkingDir,
			Labels:       c.Labels,
			StopSignal:   c.StopSignal,
			ArgsEscaped:  c.ArgsEscaped,
			Healthcheck:  inspectHealth(nil, c.Health),
			Shell:        c.Shell,
		},
	}
}
