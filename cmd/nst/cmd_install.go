package main

import (
	"archive/zip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/seed9bb5c928/nst/torch"
)

func newInstallCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "install cuda",
		Short: "Fetch what a GPU needs: libtorch's CUDA libraries",
		Long: `nst install cuda fetches libtorch with its CUDA libraries (2.6 GB, by pip, each file
checked by its hash) into the cache, where nst finds it. It fetches nothing where a
Python's torch or $LIBTORCH of the same version has them: then nst uses that. Nor does it
where nvidia-smi shows a card or a driver that is too old for them, and says so.
Nothing else of nst fetches anything, but for nst weights default.`,
		Args: func(_ *cobra.Command, args []string) error {
			if len(args) != 1 || args[0] != "cuda" {
				return usage("install takes one argument: cuda")
			}
			return nil
		},
		RunE: func(c *cobra.Command, _ []string) error { return installCUDA(c.Context(), c.ErrOrStderr()) },
	}
}

func installCUDA(ctx context.Context, stderr io.Writer) error {
	for _, p := range libtorchPlaces(true) {
		if p.CUDA && p.usable() {
			fmt.Fprintf(stderr, "nst: libtorch %s with CUDA is there already: %s\n", torch.Version(), p.Path)
			return nil
		}
	}
	if !pinned() {
		return usage("this program knows no wheels of libtorch %s for this machine: pip install torch==%s, which nst "+
			"finds", torch.Version(), torch.Version())
	}
	if why := unfit(ctx); why != "" {
		return usage("%s", why)
	}
	folder, err := cudaFolder()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(folder), 0o755); err != nil {
		return fmt.Errorf("the cache: %w; $NST_CACHE names another folder", err)
	}
	if err := roomFor(filepath.Dir(folder)); err != nil {
		return err
	}
	left, _ := filepath.Glob(filepath.Join(filepath.Dir(folder), "installing.*"))
	for _, old := range left { // of a command that was killed
		if info, err := os.Stat(old); err == nil && time.Since(info.ModTime()) > 24*time.Hour {
			os.RemoveAll(old)
		}
	}
	work, err := os.MkdirTemp(filepath.Dir(folder), "installing.")
	if err != nil {
		return fmt.Errorf("the cache: %w; $NST_CACHE names another folder", err)
	}
	defer os.RemoveAll(work)
	cpu, cuda := wheels()
	if exists(filepath.Join(folder, "torch", "lib", "libtorch_cuda.so")) { // scripts/setup's, or this command's
		cpu = nil
	}
	fmt.Fprintf(stderr, "nst: fetching libtorch %s with CUDA into %s (2.6 GB, unpacked 5 GB)\n", torch.Version(),
		folder)
	if err := pipDownload(ctx, work, append(cpu, cuda...), stderr); ctx.Err() != nil {
		return ctx.Err()
	} else if err != nil {
		return fmt.Errorf("pip could not download libtorch (%w): run it again, or pip install torch==%s, which nst "+
			"finds", err, torch.Version())
	}
	archives, err := filepath.Glob(filepath.Join(work, "*.whl"))
	if err != nil {
		return err
	}
	files := filepath.Join(work, "files")
	for _, archive := range archives {
		if err := unpack(ctx, archive, files); err != nil {
			return fmt.Errorf("%s: %w", filepath.Base(archive), err)
		}
	}
	if err := merge(files, folder); err != nil {
		return err
	}
	complete := filepath.Join(folder, "nvidia", ".complete")
	if err := os.WriteFile(complete, nil, 0o644); err != nil {
		return err
	}
	fmt.Fprintln(stderr, "nst: done; nst doctor says what it finds")
	return nil
}

// pipDownload downloads the wheels of requirements into a folder, in which it leaves its
// list of them. pip checks the hashes.
func pipDownload(ctx context.Context, folder string, requirements []string, stderr io.Writer) error {
	list := filepath.Join(folder, "requirements.txt")
	if err := os.WriteFile(list, []byte(strings.Join(requirements, "\n")+"\n"), 0o644); err != nil {
		return err
	}
	args := []string{"-m", "pip", "--disable-pip-version-check", "download", "--no-cache-dir", "--no-deps",
		"--only-binary=:all:", "--require-hashes", "--python-version", "3.11", "--implementation", "cp"}
	for minor := 28; minor >= 5; minor-- { // pip matches these tags exactly, and NVIDIA's wheels carry many
		args = append(args, "--platform", "manylinux_2_"+strconv.Itoa(minor)+"_x86_64")
	}
	for _, tag := range []string{"manylinux2014_x86_64", "manylinux2010_x86_64", "manylinux1_x86_64", "any"} {
		args = append(args, "--platform", tag)
	}
	pip := exec.CommandContext(ctx, python(), append(args, "--dest", folder, "--requirement", list)...)
	pip.Env = append(os.Environ(), "TMPDIR="+folder) // where there is room for them
	pip.Stdout, pip.Stderr = stderr, stderr
	err := pip.Run()
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("there is no %s: apt install python3-pip, or name one by $NST_PYTHON", python())
	}
	if err != nil && exec.CommandContext(ctx, python(), "-m", "pip", "--version").Run() != nil {
		return fmt.Errorf("%s has no pip: apt install python3-pip, or name another by $NST_PYTHON", python())
	}
	return err
}

// roomFor looks whether a folder's disk has room for what is fetched, and unpacked.
func roomFor(folder string) error {
	const wanted = 8_000_000_000
	var s syscall.Statfs_t
	if syscall.Statfs(folder, &s) == nil && int64(s.Bavail)*s.Bsize < wanted {
		return usage("%s has %s free, and %s are wanted; $NST_CACHE names another folder", folder,
			humanize.Bytes(s.Bavail*uint64(s.Bsize)), humanize.Bytes(wanted))
	}
	return nil
}

// unpack writes the files of a zip into a folder.
func unpack(ctx context.Context, archive, folder string) error {
	z, err := zip.OpenReader(archive)
	if err != nil {
		return err
	}
	defer z.Close()
	for _, f := range z.File {
		if err := ctx.Err(); err != nil {
			return err
		}
		if !filepath.IsLocal(f.Name) {
			return fmt.Errorf("%q leads out of it", f.Name)
		}
		path := filepath.Join(folder, f.Name)
		if f.FileInfo().IsDir() {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := unpackFile(f, path); err != nil {
			return fmt.Errorf("%s (%s): %w", f.Name, humanize.Bytes(f.UncompressedSize64), err)
		}
	}
	return nil
}

func unpackFile(f *zip.File, path string) error {
	in, err := f.Open()
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}

// merge moves a folder's files into another of the same disk.
func merge(from, to string) error {
	return filepath.WalkDir(from, func(path string, entry os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		target := filepath.Join(to, relative)
		if entry.IsDir() {
			return os.MkdirAll(target, 0o755)
		}
		return os.Rename(path, target)
	})
}
