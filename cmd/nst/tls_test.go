package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/nst/nsttest"
)

// Over HTTPS a renewed certificate is taken without a restart; a worker of another machine
// needs TLS and a token of its own, which can be taken away, and those of this machine
// neither; requests are logged apart, those that only read not at all.
func TestServeSecured(t *testing.T) {
	nsttest.Long(t)
	folder := t.TempDir()
	write := nsttest.Writer(t, folder)
	first, second := newAuthority(t), newAuthority(t)
	cert, key := first.issue(t)
	apiCert, apiKey := write("cert.pem", cert), write("key.pem", key)
	cert, key = first.issue(t)
	natsCert, natsKey := write("nats.pem", cert), write("nats-key.pem", key)
	const secret, other = "0123456789abcdef-one", "0123456789abcdef-two"
	tokens := write("workers", []byte("w1: "+secret+"\nw2: "+other+"\n"))
	address, nats := nsttest.Address(t), nsttest.Address(t)
	access := filepath.Join(folder, "access.log")

	ctx, cancel := context.WithCancel(context.Background())
	var done sync.WaitGroup
	var stderr bytes.Buffer
	done.Go(func() {
		assert.Equal(t, exitDone, run(ctx, []string{"serve", "--addr", address, "--data", t.TempDir(), "--model",
			nsttest.Slim(t), "--device", "cpu", "--json-log", "--tls-cert", apiCert, "--tls-key", apiKey,
			"--nats-listen", nats, "--nats-tls-cert", natsCert, "--nats-tls-key", natsKey, "--worker-tokens", tokens,
			"--access-log-file", access}, io.Discard, &stderr))
	})
	client := func(a *authority) *http.Client {
		trusted := x509.NewCertPool()
		require.True(t, trusted.AppendCertsFromPEM(a.pem))
		return &http.Client{Transport: &http.Transport{DisableKeepAlives: true, ForceAttemptHTTP2: true,
			TLSClientConfig: &tls.Config{RootCAs: trusted}}}
	}
	get := func(c *http.Client, path string) int {
		answer, err := c.Get("https://" + address + path)
		if err != nil {
			return 0
		}
		answer.Body.Close()
		return answer.StatusCode
	}
	eventually := func(what string, so func() bool) {
		t.Helper()
		require.Eventually(t, so, time.Minute, 50*time.Millisecond, what)
	}
	eventually("its own worker, which has no certificate, works",
		func() bool { return get(client(first), "/readyz") == 200 })
	answer, err := http.Get("http://" + address + "/readyz")
	require.NoError(t, err)
	answer.Body.Close()
	assert.Equal(t, 400, answer.StatusCode, "HTTP to an HTTPS server")

	connect := func(change func(*workerOptions)) error {
		o := workerOptions{nats: "tls://w1:" + secret + "@" + nats, ca: write("ca.pem", first.pem)}
		change(&o)
		nc, err := o.connect(context.Background(), slog.New(slog.DiscardHandler))
		if err == nil {
			nc.Close()
		}
		return err
	}
	require.NoError(t, connect(func(*workerOptions) {}))
	assert.ErrorContains(t, connect(func(o *workerOptions) { o.ca = "" }), "unknown authority")
	assert.ErrorContains(t, connect(func(o *workerOptions) { o.nats = "nats://w1:" + secret + "@" + nats; o.ca = "" }),
		"unknown authority", "there is no way in without TLS")
	assert.ErrorContains(t, connect(func(o *workerOptions) { o.nats = "tls://w1:" + other + "@" + nats }),
		"Authorization")
	o := workerOptions{nats: "tls://w1:" + secret + "@" + nats, ca: write("ca.pem", first.pem)}
	nc, err := o.connect(context.Background(), slog.New(slog.DiscardHandler))
	require.NoError(t, err)
	defer nc.Close()
	write("workers", []byte("w2: "+other+"\n"))
	eventually("whose token is taken away is disconnected", func() bool { return !nc.IsConnected() })
	assert.NoError(t, connect(func(o *workerOptions) { o.nats = "tls://w2:" + other + "@" + nats }))

	write("workers", []byte("# none\n"))
	eventually("the last one is taken away as well", func() bool {
		return connect(func(o *workerOptions) { o.nats = "tls://w2:" + other + "@" + nats }) != nil
	})
	require.NoError(t, os.Rename(access, access+".1"))
	require.NoError(t, syscall.Kill(os.Getpid(), syscall.SIGHUP))
	eventually("the log of requests is opened anew", func() bool {
		_, err := os.Stat(access)
		return err == nil
	})

	cert, key = second.issue(t)
	write("key.pem", key) // a moment in which they do not belong together
	write("cert.pem", cert)
	eventually("the new certificate is served", func() bool { return get(client(second), "/healthz") == 200 })

	assert.Equal(t, 404, get(client(second), "/v1/jobs/none"))
	cancel()
	done.Wait()
	lines, err := os.ReadFile(access)
	require.NoError(t, err)
	for line := range strings.Lines(string(lines)) {
		var entry struct {
			Path, Request, Job string
			Status             int
		}
		require.NoError(t, json.Unmarshal([]byte(line), &entry))
		assert.GreaterOrEqual(t, entry.Status, 400, "%s only reads", line)
		assert.NotEmpty(t, entry.Request, line)
	}
	assert.Contains(t, string(lines), `"path":"/v1/jobs/none","status":404`)
	assert.Contains(t, string(lines), `"job":"none"`)
	assert.NotContains(t, stderr.String(), `"msg":"request"`)
}
