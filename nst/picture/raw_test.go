package picture_test

import (
	"bufio"
	"bytes"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/nst/picture"
)

// What one process decodes is in another, bit by bit, what it would have decoded itself.
func TestRaw(t *testing.T) {
	for _, folder := range []string{"testdata/kinds", "testdata/found", "testdata"} {
		for _, data := range files(t, filepath.Join(folder, "*.*")) {
			want, err := picture.Decode(bytes.NewReader(data))
			var raw *picture.Raw
			header, rawErr := picture.ReadHeader(data)
			if rawErr == nil {
				raw, rawErr = header.Raw(0)
			}
			if err != nil {
				assert.EqualError(t, rawErr, err.Error())
				continue
			}
			require.NoError(t, rawErr)
			var sent bytes.Buffer
			_, err = raw.WriteTo(&sent)
			require.NoError(t, err)
			whole := sent.Bytes()
			raw, err = picture.ReadRaw(bufio.NewReaderSize(bytes.NewReader(whole), 1<<20), 1<<30)
			require.NoError(t, err)
			assert.True(t, assert.ObjectsAreEqual(want, raw.Picture()))
			for _, cut := range []int{0, 1, len(whole) / 2, len(whole) - 1} {
				_, err = picture.ReadRaw(bufio.NewReaderSize(bytes.NewReader(whole[:cut]), 1<<20), 1<<30)
				assert.Error(t, err)
			}
			_, err = picture.ReadRaw(bufio.NewReaderSize(bytes.NewReader(whole), 1<<20), 10)
			assert.Error(t, err, "of more memory than it may take")
		}
	}
}
