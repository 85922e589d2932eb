package nst_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/seed9bb5c928/nst/nst"
	"github.com/seed9bb5c928/nst/nst/picture"
)

// A service opens an engine once and sends it pictures.
func Example() {
	ctx := context.Background()
	engine, err := nst.Open(ctx, "../build/share/nst/vgg19.pt", nst.OpenOptions{Device: "cpu"})
	if err != nil {
		log.Fatal(err)
	}
	defer engine.Close()

	content, err := picture.Open("testdata/reference/content-128x96.png")
	if err != nil {
		log.Fatal(err)
	}
	style, err := picture.Open("testdata/reference/style-120x96.png")
	if err != nil {
		log.Fatal(err)
	}
	var first, last nst.Progress
	result, err := engine.Stylize(ctx, content, []*picture.Picture{style},
		nst.Options{Size: new(64), Iterations: new(5), Scales: nst.ScalesOff},
		nst.Hooks{Progress: func(p nst.Progress) {
			if p.Iteration == 0 {
				first = p
			}
			last = p
		}})
	if err != nil { // if ctx was cancelled, result is the best so far
		log.Fatal(err)
	}
	out := filepath.Join(os.TempDir(), "nst-example.png")
	defer os.Remove(out)
	if err := result.Picture.Save(out, picture.Encoding{}); err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%d×%d after %d iterations, total lower: %v\n",
		result.Picture.Width, result.Picture.Height, last.Iteration, last.Total < first.Total)
	// Output: 64×48 after 5 iterations, total lower: true
}

// A run that is interrupted leaves a checkpoint, from which another one goes on.
func ExampleState_Checkpoint() {
	engine, err := nst.Open(context.Background(), "../build/share/nst/vgg19.pt", nst.OpenOptions{Device: "cpu"})
	if err != nil {
		log.Fatal(err)
	}
	defer engine.Close()
	content := picture.New(32, 32)
	styles := []*picture.Picture{picture.New(32, 32)}
	o := nst.Options{Size: new(32), Iterations: new(4), Start: nst.StartNoise}

	ctx, interrupt := context.WithCancel(context.Background())
	var checkpoint *nst.Checkpoint
	_, err = engine.Stylize(ctx, content, styles, o, nst.Hooks{Progress: func(p nst.Progress) {
		if p.Iteration == 1 {
			interrupt()
		}
		if p.Last {
			checkpoint, _ = p.State.Checkpoint() // or WriteTo a file, for ReadCheckpoint
		}
	}})
	fmt.Println(err)
	o.Resume = checkpoint
	result, err := engine.Stylize(context.Background(), content, styles, o, nst.Hooks{})
	fmt.Println(result.Iterations, err)
	// Output:
	// context canceled
	// 4 <nil>
}
