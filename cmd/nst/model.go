package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/seed9bb5c928/nst/nst/vgg19"
	"github.com/seed9bb5c928/nst/torch"
)

// defaultModel is the default network's file: $NST_MODEL, or share/nst/vgg19.pt
// beside the folder that the program is in (where scripts/setup puts it), or
// ~/.cache/nst/vgg19.pt. Where there is none, but the weights lie in share/nst as
// they are published, in a quarter of the size (scripts/release puts them there), it is
// made of them, in the first of these places that can be written to.
func defaultModel() (string, error) {
	if path := os.Getenv("NST_MODEL"); path != "" {
		return path, nil
	}
	var places []string
	if share, err := shareFolder(); err == nil {
		places = append(places, filepath.Join(share, "vgg19.pt"))
	}
	if cache, err := cacheFolder(); err == nil {
		places = append(places, filepath.Join(cache, "vgg19.pt"))
	}
	for _, p := range places {
		if exists(p) {
			return p, nil
		}
	}
	if len(places) == 0 {
		return "", usage("there is no default network; name one with --model")
	}
	if codes := filepath.Join(filepath.Dir(places[0]), defaultWeights); exists(codes) {
		return expand(codes, places)
	}
	last := filepath.Clean(places[len(places)-1])
	return "", usage("the default network is not there; make it with: nst weights default -o %s", last)
}

// programFolder is the folder above the one that the program is in.
func programFolder() (string, error) {
	program, err := os.Executable()
	if err == nil {
		program, err = filepath.EvalSymlinks(program)
	}
	return filepath.Dir(filepath.Dir(program)), err
}

// shareFolder is where the default network lies beside the program.
func shareFolder() (string, error) {
	top, err := programFolder()
	return filepath.Join(top, "share", "nst"), err
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

// expand makes the default network of its published weights.
func expand(codes string, places []string) (string, error) {
	w, err := vgg19.ReadWeights(context.Background(), codes, "")
	if err != nil {
		return "", err
	}
	for _, p := range places {
		if err = os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			continue
		}
		if err = w.WriteTorchScript(p); err == nil {
			return p, nil
		}
	}
	return "", fmt.Errorf("the default network has no place: %w; name a file of it with $NST_MODEL", err)
}

// cacheFolder is where downloads are kept, as scripts/setup has it.
func cacheFolder() (string, error) {
	if folder := os.Getenv("NST_CACHE"); folder != "" {
		return folder, nil
	}
	folder, err := os.UserCacheDir()
	return filepath.Join(folder, "nst"), err
}

// modelError makes a missing model file the user's error.
func modelError(path string, err error) error {
	if torch.OfDevice(err) {
		return err
	}
	if errors.Is(err, os.ErrNotExist) {
		return usage("--model: %s is not there", path)
	}
	if errors.Is(err, os.ErrPermission) {
		return usage("--model: %s cannot be read", path)
	}
	return fmt.Errorf("--model: %w", err)
}
