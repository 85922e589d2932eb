package httpapi_test

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"
	"os"

	"github.com/seed9bb5c928/nst/nst/httpapi"
	"github.com/seed9bb5c928/nst/nst/jobs"
)

// The API and the page are an http.Handler over a queue, beside calls of one's own.
func Example() {
	dir, err := os.MkdirTemp("", "nst-example-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	server, err := jobs.StartServer(jobs.ServerConfig{Dir: dir})
	if err != nil {
		log.Fatal(err)
	}
	defer server.Close()
	nc, err := server.Connect()
	if err != nil {
		log.Fatal(err)
	}
	defer nc.Close()
	queue, err := jobs.Open(context.Background(), nc, jobs.Config{Dir: dir, MaxBytes: server.MaxBytes()})
	if err != nil {
		log.Fatal(err)
	}
	defer queue.Close()

	api := httpapi.New(queue, httpapi.Config{})
	defer api.Close()
	mux := http.NewServeMux()
	mux.Handle("/", api)
	mux.HandleFunc("GET /mine", func(http.ResponseWriter, *http.Request) {})
	web := httptest.NewServer(mux) // or api.Server(), which has limits for slow clients
	defer web.Close()
	// /readyz waits for a worker: see jobs.Queue.Work.
	for _, path := range []string{"/healthz", "/readyz", "/v1/jobs", "/mine", "/v1/nothing"} {
		answer, err := http.Get(web.URL + path)
		if err != nil {
			log.Fatal(err)
		}
		answer.Body.Close()
		fmt.Println(path, answer.StatusCode)
	}
	// Output:
	// /healthz 200
	// /readyz 503
	// /v1/jobs 200
	// /mine 200
	// /v1/nothing 404
}
