package main

import (
	"strings"

	"github.com/spf13/cobra"
)

// ofContent are the flags of nst stylize that mean nothing where there is no content.
var ofContent = []string{"content-weight", "content-layers", "content-loss", "content-mask", "style-mask", "mask-soft",
	"strength-mask", "color", "alpha", "transfer"}

func newTextureCommand() *cobra.Command {
	o := &stylizeOptions{texture: true}
	c := &cobra.Command{
		Use:   "texture STYLE… -o OUT",
		Short: "Make a square picture of the textures of others",
		Example: `  nst texture painting.jpg -o out.png
  nst texture painting.jpg -o tile.png --size 1024 --wrap xy`,
		Args: func(c *cobra.Command, args []string) error {
			if len(args) < 1 {
				return usage("texture takes at least one style picture: nst texture STYLE… -o OUT")
			}
			for _, name := range ofContent {
				if c.Flags().Changed(name) {
					return usage("--%s is of nst stylize: a texture has no content", name)
				}
			}
			if c.Flags().Lookup("init").Value.String() == "content" {
				return usage("--init is content: a texture has none; faint, noise, gray or a picture file will do")
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			o.styles = args
			return runStylize(c.Context(), o, c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	o.register(c.Flags())
	for _, name := range ofContent {
		c.Flags().Lookup(name).Hidden = true
	}
	start := c.Flags().Lookup("init")
	start.Usage = strings.Replace(start.Usage, "default content", "default faint", 1)
	c.Flags().Lookup("size").Usage = "side of the texture (default 512)"
	return c
}
