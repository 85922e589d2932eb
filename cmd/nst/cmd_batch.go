package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/seed9bb5c928/nst/nst"
	"github.com/seed9bb5c928/nst/nst/picture"
	"github.com/seed9bb5c928/nst/torch"
	"github.com/spf13/cobra"
)

// batchOptions are the flags of nst batch.
type batchOptions struct {
	*transferFlags
	content, style, output string
	format                 string
	together               int
	overwrite, json, quiet bool
}

func newBatchCommand() *cobra.Command {
	o := &batchOptions{}
	c := &cobra.Command{
		Use:   "batch --content DIR|GLOB --style DIR|GLOB -o DIR",
		Short: "Give every picture every style",
		Long: `Every content picture is given every style, as DIR/CONTENT--STYLE.png. The network
is loaded once. A pair whose output is there already is left alone, so a batch that
was interrupted goes on when it is run again; a pair that fails does not stop the
rest, and is reported at the end.`,
		Example: `  nst batch --content photos --style 'paintings/*.jpg' -o results --size 768`,
		Args:    cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return runBatch(c.Context(), o, c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	f := c.Flags()
	f.SortFlags = false
	f.StringVar(&o.content, "content", "", "content pictures: a folder or a pattern such as 'photos/*.jpg' (required)")
	f.StringVar(&o.style, "style", "", "style pictures, likewise (required)")
	f.StringVarP(&o.output, "output", "o", "", "the folder to write to; it is made if it is not there (required)")
	f.StringVar(&o.format, "format", "png", "of the results: png, jpg, webp, tif or avif")
	f.BoolVar(&o.overwrite, "overwrite", false, "make the pictures anew that are there already")
	f.IntVar(&o.together, "together", 1, "pictures of one size made at once: fills a GPU with small pictures; on "+
		"the CPU it saves a fifth at 128 pixels and little above")
	o.transferFlags = newTransferFlags(f)
	f.BoolVar(&o.json, "json", false, "print each result's summary as a JSON object on a line")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "no progress")
	return c
}

// pair is one transfer of a batch.
type pair struct{ content, style, output string }

// runBatch goes through the pairs.
func runBatch(ctx context.Context, o *batchOptions, stdout, stderr io.Writer) error {
	if o.together < 1 {
		return usage("--together is %d; 1 or more will do", o.together)
	}
	pairs, leftOut, err := o.pairs()
	for _, path := range leftOut {
		fmt.Fprintf(stderr, "nst: left out %s: its ending is none of a picture's\n", path)
	}
	if err != nil {
		return err
	}
	options, err := o.options(ctx)
	if err != nil {
		return err
	}
	encoding, err := o.encoding(options)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(o.output, 0o755); err != nil {
		return usage("-o: %w", err)
	}
	out, err := newTarget(pairs[0].output, "", encoding, stdout)
	if err != nil {
		return err
	}
	out.fit(&options)
	var left []pair
	for _, p := range pairs {
		if _, err := os.Stat(p.output); err != nil || o.overwrite {
			left = append(left, p)
		}
	}
	say := func(format string, args ...any) {
		if !o.quiet {
			fmt.Fprintf(stderr, format+"\n", args...)
		}
	}
	if n := len(pairs) - len(left); n > 0 {
		say("%d of %d are there already", n, len(pairs))
	}
	if len(left) == 0 {
		return nil
	}
	engine, err := o.open(ctx, stderr)
	if err != nil {
		return err
	}
	defer engine.Close()
	var failed []error
	finish := func(p pair, result *nst.Result, err error) error {
		if err == nil {
			err = out.at(p.output).save(result.Picture)
		}
		if err != nil {
			failed = append(failed, fmt.Errorf("%s with %s: %w", p.content, p.style, err))
			say("%s: failed: %s", filepath.Base(p.output), oneLine(err))
			return nil
		}
		s := newSummary(p.output, engine.Device(), result)
		say("%s", s.text())
		if o.json {
			return json.NewEncoder(stdout).Encode(s)
		}
		return nil
	}
	for done := 0; done < len(left); {
		group := left[done:min(len(left), done+o.together)]
		show := newProgress(o.quiet, stderr)
		show.prefix = fmt.Sprintf("%d of %d, %s: ", done+len(group), len(left), filepath.Base(group[0].output))
		results, err := o.stylizePairs(ctx, engine, options, group, show)
		if err != nil && len(group) > 1 && ctx.Err() == nil && !errors.Is(err, torch.ErrDeviceLost) {
			// Of two sizes, or one fails: each by itself.
			group = group[:1]
			results, err = o.stylizePairs(ctx, engine, options, group, show)
		}
		show.done()
		if ctx.Err() != nil { // no picture that is not finished: the next run makes it
			return errors.Join(append(failed, context.Cause(ctx))...)
		}
		if errors.Is(err, torch.ErrDeviceLost) {
			rest := left[done:]
			return errors.Join(append(failed, fmt.Errorf("%w; %d pictures are left, which the same command makes: %s",
				err, len(rest), someOf(rest)))...)
		}
		for i, p := range group {
			var result *nst.Result
			if err == nil {
				result = results[i]
			}
			if err := finish(p, result, err); err != nil {
				return err
			}
		}
		done += len(group)
	}
	if len(failed) > 0 {
		return errors.Join(append([]error{fmt.Errorf("%d of %d pictures failed", len(failed), len(left))},
			failed...)...)
	}
	return nil
}

// someOf names the first pictures of what is left.
func someOf(left []pair) string {
	const most = 5
	var names []string
	for _, p := range left[:min(most, len(left))] {
		names = append(names, filepath.Base(p.output))
	}
	if len(left) > most {
		names = append(names, "…")
	}
	return strings.Join(names, ", ")
}

// stylizePairs makes the pairs' pictures at once; show gets the first's progress.
func (t *transferFlags) stylizePairs(ctx context.Context, engine *nst.Engine, options nst.Options, group []pair,
	show *progress) ([]*nst.Result, error) {
	var inputs []nst.Input
	for _, p := range group {
		content, err := t.openPicture(ctx, p.content)
		if err != nil {
			return nil, err
		}
		style, err := t.openPicture(ctx, p.style)
		if err != nil {
			return nil, err
		}
		inputs = append(inputs, nst.Input{Content: content, Styles: []*picture.Picture{style}})
	}
	return engine.StylizeBatch(ctx, inputs, options, nst.Hooks{Progress: func(p nst.Progress) {
		if p.Input == 0 {
			show.update(p)
		}
	}})
}

// pairs are all contents with all styles, in order; leftOut are files beside them.
func (o *batchOptions) pairs() (out []pair, leftOut []string, err error) {
	if o.output == "" {
		return nil, nil, usage("-o is missing: the folder to write to")
	}
	contents, leftOut, err := find("content", o.content)
	if err != nil {
		return nil, leftOut, err
	}
	styles, more, err := find("style", o.style)
	if leftOut = append(leftOut, more...); err != nil {
		return nil, leftOut, err
	}
	contentNames, styleNames := outputNames(contents), outputNames(styles)
	for i, content := range contents {
		for k, style := range styles {
			name := fmt.Sprintf("%s--%s.%s", contentNames[i], styleNames[k], strings.TrimPrefix(o.format, "."))
			out = append(out, pair{content, style, filepath.Join(o.output, name)})
		}
	}
	return out, leftOut, nil
}

// pictureEndings are what a folder is searched for.
var pictureEndings = []string{".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".tif", ".tiff", ".gif", ".bmp",
	".dib", ".heic", ".heif", ".hif", ".avif", ".jxl", ".mpo", ".apng"}

// find lists a folder's pictures, and its other files, or the files of a pattern.
func find(flag, where string) (found, leftOut []string, err error) {
	if where == "" {
		return nil, nil, usage("--%s is missing: a folder of pictures, or a pattern such as 'photos/*.jpg'", flag)
	}
	if info, err := os.Stat(where); err == nil && info.IsDir() {
		entries, err := os.ReadDir(where)
		if err != nil {
			return nil, nil, usage("--%s: %w", flag, err)
		}
		for _, e := range entries {
			path := filepath.Join(where, e.Name())
			switch {
			case e.IsDir() || strings.HasPrefix(e.Name(), "."):
			case slices.Contains(pictureEndings, strings.ToLower(filepath.Ext(path))):
				found = append(found, path)
			default:
				leftOut = append(leftOut, path)
			}
		}
	} else if found, err = filepath.Glob(where); err != nil {
		return nil, nil, usage("--%s: %q is no pattern: %w", flag, where, err)
	}
	switch {
	case len(found) > 0:
		return found, leftOut, nil
	case len(leftOut) > 0:
		return nil, leftOut, fmt.Errorf("--%s: all files in %s were left out", flag, where)
	}
	return nil, nil, usage("--%s: there is no picture in %s", flag, where)
}

// outputNames are the files' names without folder and ending; with the ending
// where two files would be alike, and a number where that is not enough.
func outputNames(paths []string) []string {
	stem := func(path string) string {
		return strings.TrimSuffix(filepath.Base(path), filepath.Ext(path))
	}
	stems, bases := map[string]int{}, map[string]int{}
	for _, p := range paths {
		stems[stem(p)]++
	}
	out := make([]string, len(paths))
	for i, p := range paths {
		out[i] = stem(p)
		if stems[out[i]] > 1 {
			base := filepath.Base(p)
			out[i] = base
			if bases[base]++; bases[base] > 1 {
				out[i] = fmt.Sprintf("%s-%d", base, bases[base])
			}
		}
	}
	return out
}
