package main

import (
	"fmt"
	"slices"

	"github.com/seed9bb5c928/nst/nst/picture"
	"github.com/seed9bb5c928/nst/nst/report"
	"github.com/spf13/cobra"
)

func newCompareCommand() *cobra.Command {
	var html string
	var inputs []string
	var seed uint64
	c := &cobra.Command{
		Use:   "compare PICTURE PICTURE… --html OUT",
		Short: "Make a page on which people vote for the better picture, without their names",
		Example: `  nst compare mine.png theirs.png --html vote.html
  nst compare a.png b.png c.png --input photo.jpg --input painting.jpg --html vote.html`,
		Args: func(_ *cobra.Command, args []string) error {
			if n := len(args); n < 2 || n > report.MostCompared {
				return usage("compare takes 2 to %d pictures, not %d: nst compare PICTURE PICTURE… --html OUT",
					report.MostCompared, n)
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			if html == "" {
				return usage("--html is missing: the page to write")
			}
			if err := picture.CheckWritable(html); err != nil {
				return fmt.Errorf("--html: %w", err)
			}
			for _, path := range slices.Concat(args, inputs) {
				if sameFile(path, html) {
					return usage("--html is %s, one of the pictures; give the page a file of its own", html)
				}
			}
			open := func(paths []string) (all []report.Named, err error) {
				for _, path := range paths {
					p, err := decoders.Open(c.Context(), path, 0)
					if err != nil {
						return nil, err
					}
					all = append(all, report.Named{Path: path, Picture: p})
				}
				return all, nil
			}
			shown, err := open(inputs)
			if err != nil {
				return err
			}
			pictures, err := open(args)
			if err != nil {
				return err
			}
			page, err := report.Compare(shown, pictures, seed)
			if err != nil {
				return err
			}
			return picture.WriteFile(html, page)
		},
	}
	f := c.Flags()
	f.SortFlags = false
	f.StringVar(&html, "html", "", "the page to write (required)")
	f.StringArrayVar(&inputs, "input", nil, "a picture to show with its name, such as the content; more than once")
	f.Uint64Var(&seed, "seed", 0, "of the pictures' order")
	return c
}
