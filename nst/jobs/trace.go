package jobs

import (
	"context"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/seed9bb5c928/nst/nst"
)

// A job's trace goes on from the request that submitted it, whose identity the record has, to
// the iterations that a worker of another process makes. What has no tracer provider pays
// nothing for it.

func tracer() trace.Tracer { return otel.Tracer("github.com/seed9bb5c928/nst/nst/jobs") }

const traceParent = "traceparent" // W3C Trace Context

// traceOf is the identity of the span that ctx is in; empty: it is in none.
func traceOf(ctx context.Context) string {
	carrier := propagation.MapCarrier{}
	propagation.TraceContext{}.Inject(ctx, carrier)
	return carrier[traceParent]
}

// span begins a worker's part of a job's trace.
func (j Job) span(ctx context.Context) (context.Context, trace.Span) {
	ctx = propagation.TraceContext{}.Extract(ctx, propagation.MapCarrier{traceParent: j.Trace})
	return tracer().Start(ctx, "job", trace.WithSpanKind(trace.SpanKindConsumer), trace.WithAttributes(
		attribute.String("nst.job", j.ID), attribute.String("nst.worker", j.Worker),
		attribute.String("nst.device", j.Device), attribute.Int("nst.attempt", j.Attempts),
		attribute.Int("nst.width", j.Width), attribute.Int("nst.height", j.Height)))
}

// within does something in a span of its own.
func within(ctx context.Context, name string, do func() error) error {
	_, span := tracer().Start(ctx, name)
	err := do()
	end(span, err)
	return err
}

// end ends a span, with what went wrong in it.
func end(span trace.Span, err error) {
	if err != nil {
		span.RecordError(err)
		span.SetStatus(codes.Error, err.Error())
	}
	span.End()
}

// iterations makes a span of each iteration, from when the one before was told of.
type iterations struct {
	ctx  context.Context
	last time.Time
}

func (i *iterations) add(p nst.Progress) {
	now := time.Now()
	_, span := tracer().Start(i.ctx, "iteration", trace.WithTimestamp(i.last))
	if span.IsRecording() {
		span.SetAttributes(attribute.Int("nst.iteration", p.Iteration), attribute.Int("nst.scale", p.Scale),
			attribute.Float64("nst.total", p.Total))
	}
	span.End(trace.WithTimestamp(now))
	i.last = now
}
