package main

import (
	"context"
	"log/slog"
	"os"
	"strings"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// startTracing sends traces, from requests to iterations, to where $OTEL_EXPORTER_OTLP_…
// says (OpenTelemetry's own variables): nowhere, if it says nothing. stop sends what is left.
func startTracing(ctx context.Context, log *slog.Logger) (stop func(), err error) {
	wanted := os.Getenv("OTEL_TRACES_EXPORTER") == "otlp"
	for _, name := range []string{"OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"} {
		wanted = wanted || os.Getenv(name) != ""
	}
	if !wanted || strings.EqualFold(os.Getenv("OTEL_SDK_DISABLED"), "true") ||
		os.Getenv("OTEL_TRACES_EXPORTER") == "none" {
		return func() {}, nil
	}
	for _, name := range []string{"OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"} {
		if p := os.Getenv(name); p != "" && p != "http/protobuf" {
			return nil, usage("$%s is %q; http/protobuf is what is spoken here", name, p)
		}
	}
	exporter, err := otlptracehttp.New(ctx)
	if err != nil {
		return nil, usage("$OTEL_EXPORTER_OTLP_ENDPOINT: %w", err)
	}
	from, err := resource.New(ctx, resource.WithAttributes(attribute.String("service.name", "nst"),
		attribute.String("service.version", version())), resource.WithTelemetrySDK(), resource.WithFromEnv())
	if err != nil {
		return nil, usage("$OTEL_RESOURCE_ATTRIBUTES: %w", err)
	}
	otel.SetErrorHandler(otel.ErrorHandlerFunc(func(err error) { log.Warn("traces", "error", err) }))
	provider := trace.NewTracerProvider(trace.WithBatcher(exporter), trace.WithResource(from))
	otel.SetTracerProvider(provider)
	return func() {
		last, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := provider.Shutdown(last); err != nil {
			log.Warn("traces", "error", err)
		}
		otel.SetTracerProvider(noop.NewTracerProvider())
	}, nil
}
