package nst_test

import (
	"context"
	"fmt"
	"log"

	"github.com/seed9bb5c928/nst/nst"
	"github.com/seed9bb5c928/nst/nst/picture"
)

// A service opens an engine once and sends it transfers.
func Example() {
	ctx := context.Background()
	engine, err := nst.Open(ctx, "vgg19.pt", nst.OpenOptions{})
	if err != nil {
		log.Fatal(err)
	}
	defer engine.Close()

	content, err := picture.Open("photo.jpg")
	if err != nil {
		log.Fatal(err)
	}
	style, err := picture.Open("painting.jpg")
	if err != nil {
		log.Fatal(err)
	}
	result, err := engine.Stylize(ctx, content, []*picture.Picture{style},
		nst.Options{Size: new(512), Iterations: new(200)},
		nst.Hooks{Progress: func(p nst.Progress) { fmt.Println(p.Iteration, p.Total) }})
	if err != nil { // if ctx was cancelled, result is the best so far
		log.Fatal(err)
	}
	if err := result.Picture.Save("out.png", picture.Encoding{}); err != nil {
		log.Fatal(err)
	}
}
