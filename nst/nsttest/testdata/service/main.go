// Command service is a Go service with nst's API and page in it, beside calls of
// its own.
package main

import (
	"context"
	"errors"
	"log"
	"net/http"
	"os"
	"os/signal"

	"github.com/seed9bb5c928/nst/nst"
	"github.com/seed9bb5c928/nst/nst/httpapi"
	"github.com/seed9bb5c928/nst/nst/jobs"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	server, err := jobs.StartServer(jobs.ServerConfig{Dir: os.Args[2]})
	check(err)
	defer server.Close()
	nc, err := server.Connect()
	check(err)
	defer nc.Close()
	queue, err := jobs.Open(ctx, nc, jobs.Config{Dir: os.Args[2], MaxBytes: server.MaxBytes()})
	check(err)
	defer queue.Close()
	engine, err := nst.Open(ctx, os.Args[1], nst.OpenOptions{LowPriority: true})
	check(err)
	defer engine.Close()
	worked := make(chan error)
	go func() { worked <- queue.Work(ctx, engine, "") }()

	api := httpapi.New(queue, httpapi.Config{})
	defer api.Close()
	mux := http.NewServeMux()
	mux.Handle("/", api)
	mux.HandleFunc("GET /mine", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("my own call\n")) })
	web := api.Server() // with its limits on slow clients
	web.Addr, web.Handler = os.Args[3], mux
	go func() {
		<-ctx.Done()
		_ = web.Shutdown(context.Background())
	}()
	if err := web.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
		log.Fatal(err)
	}
	check(<-worked)
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
