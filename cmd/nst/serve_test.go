package main

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"mime/multipart"
	"net"
	"net/http"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/nst/jobs"
	"github.com/seed9bb5c928/nst/nst/nsttest"
)

func TestServeRefuses(t *testing.T) {
	write := nsttest.Writer(t, t.TempDir())
	for name, c := range map[string]struct {
		args []string
		says string
	}{
		"the world without a token": {[]string{"serve", "--addr", "0.0.0.0:0"}, "give --token-file"},
		"a name without a token":    {[]string{"serve", "--addr", "example.com:80"}, "give --token-file"},
		"no address":                {[]string{"serve", "--addr", "8080"}, "--addr is"},
		"an address in use":         {[]string{"serve", "--addr", inUse(t)}, "address already in use"},
		"a token that is not there": {[]string{"serve", "--token-file", "nowhere"}, "nowhere"},
		"a short token": {[]string{"serve", "--token-file", write("token", []byte("secret"))},
			"has 6 characters"},
		"two servers": {[]string{"serve", "--nats", "nats://x", "--nats-listen", "127.0.0.1:0"},
			"give one of them"},
		"half a certificate": {[]string{"worker", "--nats", "nats://127.0.0.1:1", "--nats-cert", "x"},
			"go together"},
		"no credentials": {[]string{"worker", "--nats", "nats://127.0.0.1:1", "--nats-creds", "nowhere"},
			"--nats-creds: nowhere"},
		"an argument":               {[]string{"serve", "now"}, "takes no arguments"},
		"a worker without a server": {[]string{"worker"}, "--nats is missing"},
		"no workers":                {[]string{"serve", "--workers", "-1"}, "--workers is 0 or more"},
		"an odd amount":             {[]string{"serve", "--max-store", "much"}, "no amount of memory"},
	} {
		t.Run(name, func(t *testing.T) {
			var stderr bytes.Buffer
			assert.Equal(t, exitUsage, run(context.Background(), c.args, io.Discard, &stderr), stderr.String())
			assert.Contains(t, stderr.String(), c.says)
			assert.Equal(t, 1, bytes.Count(stderr.Bytes(), []byte("\n")))
		})
	}
}

func inUse(t *testing.T) string {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	t.Cleanup(func() { l.Close() })
	return l.Addr().String()
}

// A service that is ended keeps the job that runs, and goes on with it when it is
// started again.
func TestServeGoesOn(t *testing.T) {
	nsttest.Long(t)
	nsttest.NoLeaks(t)
	data := t.TempDir()
	address := nsttest.Address(t)
	serve := func() (stop func()) {
		ctx, cancel := context.WithCancel(context.Background())
		var done sync.WaitGroup
		done.Go(func() {
			var stderr bytes.Buffer
			assert.Equal(t, exitDone, run(ctx, []string{"serve", "--addr", address, "--data", data, "--model",
				nsttest.Model(t), "--device", "cpu", "--json-log", "--patience", "1h"}, io.Discard, &stderr), "%s",
				&stderr)
		})
		require.Eventually(t, func() bool {
			answer, err := http.Get("http://" + address + "/readyz")
			if err == nil {
				answer.Body.Close()
			}
			return err == nil
		}, 30*time.Second, 50*time.Millisecond)
		return func() { cancel(); done.Wait() }
	}
	stop := serve()
	var body bytes.Buffer
	form := multipart.NewWriter(&body)
	for part, path := range map[string]string{"content": nsttest.Content(t), "style": nsttest.Style(t)} {
		w, err := form.CreateFormFile(part, path)
		require.NoError(t, err)
		picture, err := os.ReadFile(path)
		require.NoError(t, err)
		_, _ = w.Write(picture)
	}
	require.NoError(t, form.WriteField("options", `{"size":96,"iterations":60,"scales":"off"}`))
	require.NoError(t, form.Close())
	answer, err := http.Post("http://"+address+"/v1/jobs", form.FormDataContentType(), &body)
	require.NoError(t, err)
	answer.Body.Close()
	require.Equal(t, 201, answer.StatusCode)
	until := func(so func(jobs.Job) bool) (j jobs.Job) {
		require.Eventually(t, func() bool {
			answer, err := http.Get("http://" + address + answer.Header.Get("Location"))
			require.NoError(t, err)
			defer answer.Body.Close()
			require.NoError(t, json.NewDecoder(answer.Body).Decode(&j))
			return so(j)
		}, 3*time.Minute, 20*time.Millisecond)
		return j
	}
	at := until(func(j jobs.Job) bool { return j.Progress != nil && j.Progress.Iteration > 5 }).Progress.Iteration
	stop()
	stop = serve()
	j := until(func(j jobs.Job) bool { return j.Attempts == 2 && j.Progress != nil })
	assert.GreaterOrEqual(t, j.Progress.Iteration, at)
	j = until(func(j jobs.Job) bool { return j.State.Finished() })
	assert.Equal(t, jobs.Done, j.State, j.Error)
	assert.Equal(t, 60, j.Result.Iterations)
	stop()
}
