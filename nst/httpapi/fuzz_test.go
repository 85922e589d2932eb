package httpapi

import (
	"encoding/json"
	"errors"
	"testing"

	"github.com/seed9bb5c928/nst/nst"
)

// FuzzOptions: whatever is sent as options is refused with a problem of the client's,
// or is valid, and stays so when it is written and read again.
func FuzzOptions(f *testing.F) {
	for _, seed := range []string{
		`{}`, `{"size":512,"preset":"gatys"}`, `{"style_layers":["relu1_1=0.5","conv2_1"],"scales":"64,128"}`,
		`{"memory_limit":"2G","tile":"512","style_weights":[1,0.5],"init":"picture"}`, `{"size":1e99}`,
		`[]`, `{"seed":-1}`, "null", `{"frame_iterations":3,"long_term":[1,2],"passes":2,"container":"webm"}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		o, c, err := parseOptions(data)
		if err != nil {
			var option *nst.OptionError
			if p := problemOf(err); p.Status != 422 || p.Detail == "" || p.Field == "" && errors.As(err, &option) {
				t.Fatalf("%q is answered with %+v (%v)", data, p, err)
			}
			return
		}
		again, err := json.Marshal(options{o, c})
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := parseOptions(again); err != nil {
			t.Fatalf("%q becomes %q: %v", data, again, err)
		}
	})
}
