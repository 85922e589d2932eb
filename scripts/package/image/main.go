// Command image makes an OCI image of a folder: a layer for each tar that is named, and
// how a container of it is run. It needs no daemon and no registry.
//
//	go run . -o IMAGE.tar -version V LAYER.tar...
package main

import (
	"archive/tar"
	"flag"
	"io"
	"io/fs"
	"log"
	"os"
	"path/filepath"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

func main() {
	log.SetFlags(0)
	out := flag.String("o", "", "the image to write, an OCI layout in a tar")
	version := flag.String("version", "", "the program's version")
	made := flag.Int64("time", 0, "when it was made, in seconds since 1970")
	flag.Parse()
	if err := build(*out, *version, time.Unix(*made, 0).UTC(), flag.Args()); err != nil {
		log.Fatal("image: ", err)
	}
}

func build(out, version string, made time.Time, layers []string) error {
	image := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	for _, path := range layers {
		layer, err := tarball.LayerFromFile(path, tarball.WithMediaType(types.OCILayer))
		if err != nil {
			return err
		}
		if image, err = mutate.Append(image, mutate.Addendum{Layer: layer, MediaType: types.OCILayer,
			History: v1.History{Created: v1.Time{Time: made}, CreatedBy: filepath.Base(path)}}); err != nil {
			return err
		}
	}
	file, err := image.ConfigFile()
	if err != nil {
		return err
	}
	file = file.DeepCopy()
	file.OS, file.Architecture, file.Created = "linux", "amd64", v1.Time{Time: made}
	file.Config = v1.Config{
		User:         "65532:65532",
		WorkingDir:   "/var/lib/nst",
		Entrypoint:   []string{"/opt/nst/bin/nst"},
		Cmd:          []string{"serve", "--addr", "0.0.0.0:8080", "--token-file", "/etc/nst/tokens", "--data", "/var/lib/nst"},
		ExposedPorts: map[string]struct{}{"8080/tcp": {}},
		Volumes:      map[string]struct{}{"/var/lib/nst": {}},
		StopSignal:   "SIGTERM",
		Env: []string{"PATH=/opt/nst/bin:/usr/bin:/bin", "HOME=/var/lib/nst", "NST_CACHE=/var/cache/nst",
			"NVIDIA_VISIBLE_DEVICES=all", "NVIDIA_DRIVER_CAPABILITIES=compute,utility"},
		Healthcheck: &v1.HealthConfig{Test: []string{"CMD", "/opt/nst/bin/nst", "ready"}, Interval: 30 * time.Second,
			Timeout: 10 * time.Second, StartPeriod: time.Minute, Retries: 3},
		Labels: map[string]string{"org.opencontainers.image.title": "nst", "org.opencontainers.image.version": version,
			"org.opencontainers.image.licenses": "MIT"},
	}
	if image, err = mutate.ConfigFile(image, file); err != nil {
		return err
	}
	folder, err := os.MkdirTemp(filepath.Dir(out), "image.")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	written, err := layout.Write(folder, empty.Index)
	if err != nil {
		return err
	}
	if err := written.AppendImage(image, layout.WithAnnotations(map[string]string{
		"org.opencontainers.image.ref.name": version})); err != nil {
		return err
	}
	return pack(folder, out, made)
}

// pack writes a folder's files into a tar.
func pack(folder, out string, made time.Time) error {
	file, err := os.Create(out)
	if err != nil {
		return err
	}
	defer file.Close()
	w := tar.NewWriter(file)
	err = filepath.WalkDir(folder, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		name, err := filepath.Rel(folder, path)
		if err != nil {
			return err
		}
		in, err := os.Open(path)
		if err != nil {
			return err
		}
		defer in.Close()
		info, err := in.Stat()
		if err != nil {
			return err
		}
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: info.Size(), ModTime: made}); err != nil {
			return err
		}
		_, err = io.Copy(w, in)
		return err
	})
	if err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	return file.Close()
}
