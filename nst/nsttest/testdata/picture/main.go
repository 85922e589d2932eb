// Command picture makes one picture with the engine alone.
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/seed9bb5c928/nst/nst"
	"github.com/seed9bb5c928/nst/nst/picture"
)

func main() {
	ctx := context.Background()
	engine, err := nst.Open(ctx, os.Args[1], nst.OpenOptions{})
	check(err)
	defer engine.Close()
	content, err := picture.Open(os.Args[2])
	check(err)
	style, err := picture.Open(os.Args[3])
	check(err)
	result, err := engine.Stylize(ctx, content, []*picture.Picture{style},
		nst.Options{Size: new(64), Iterations: new(3)}, nst.Hooks{})
	check(err)
	fmt.Println(result.Picture.Width, result.Picture.Height)
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
