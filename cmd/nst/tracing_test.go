package main

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	collector "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	traces "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/seed9bb5c928/nst/nst/nsttest"
)

// With OpenTelemetry's variables set, a job is one trace: from the request, through the
// worker's process, to each iteration.
func TestTraces(t *testing.T) {
	nsttest.Long(t)
	var mutex sync.Mutex
	var spans []*traces.Span
	receiver := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		data, err := io.ReadAll(r.Body)
		assert.NoError(t, err)
		var sent collector.ExportTraceServiceRequest
		assert.NoError(t, proto.Unmarshal(data, &sent))
		mutex.Lock()
		defer mutex.Unlock()
		for _, resource := range sent.ResourceSpans {
			for _, scope := range resource.ScopeSpans {
				spans = append(spans, scope.Spans...)
			}
		}
		w.Header().Set("Content-Type", "application/x-protobuf")
	}))
	defer receiver.Close()
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.URL)
	address, stop := served(t)
	var stderr bytes.Buffer
	require.Equal(t, exitDone, run(context.Background(), []string{"submit", nsttest.Content(t),
		nsttest.Style(t), "-o", filepath.Join(t.TempDir(), "out.png"), "--size", "32", "--iterations", "3",
		"--server", "http://" + address}, io.Discard, &stderr), stderr.String())
	stop() // which sends what is left, of the worker too

	mutex.Lock()
	defer mutex.Unlock()
	named := map[string][]*traces.Span{}
	for _, s := range spans {
		named[s.Name] = append(named[s.Name], s)
	}
	require.Len(t, named["POST /v1/jobs"], 1)
	request := named["POST /v1/jobs"][0]
	children := func(parent *traces.Span, name string) (all []*traces.Span) {
		for _, s := range named[name] {
			assert.Equal(t, request.TraceId, s.TraceId, name)
			assert.Equal(t, parent.SpanId, s.ParentSpanId, name)
			assert.LessOrEqual(t, s.StartTimeUnixNano, s.EndTimeUnixNano, name)
		}
		return named[name]
	}
	require.Len(t, children(request, "job"), 1)
	job := named["job"][0]
	for _, name := range []string{"inputs", "transfer", "store result"} {
		assert.Len(t, children(job, name), 1, name)
	}
	assert.GreaterOrEqual(t, len(children(named["transfer"][0], "iteration")), 3)
	assert.NotNil(t, named["GET /v1/jobs/{id}/events"])

	t.Setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
	stderr.Reset()
	assert.Equal(t, exitUsage, run(context.Background(), []string{"serve", "--addr", "127.0.0.1:0", "--data",
		t.TempDir()}, io.Discard, &stderr))
	assert.Contains(t, stderr.String(), `$OTEL_EXPORTER_OTLP_PROTOCOL is "grpc"; http/protobuf`)
}
