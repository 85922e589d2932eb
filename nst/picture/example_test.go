package picture_test

import (
	"bytes"
	"fmt"
	"log"
	"os"

	"github.com/seed9bb5c928/nst/nst/picture"
)

// A picture of any format comes upright and in sRGB, and goes out as another.
func Example() {
	p, err := picture.Open("testdata/orientation-6.jpg")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%d×%d, %d values\n", p.Width, p.Height, len(p.Pixels))
	var out bytes.Buffer
	if err := p.Shrunk(16).Encode(&out, picture.PNG, picture.Encoding{Bits: 16}); err != nil {
		log.Fatal(err)
	}
	again, err := picture.Decode(&out)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(max(again.Width, again.Height))
	_, err = picture.Open("example_test.go")
	fmt.Println(err != nil && !os.IsNotExist(err))
	// Output:
	// 32×24, 2304 values
	// 16
	// true
}
