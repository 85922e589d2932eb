package httpapi_test

import (
	"crypto/sha256"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/seed9bb5c928/nst/nst/httpapi"
	"github.com/seed9bb5c928/nst/nst/jobs"
	"github.com/seed9bb5c928/nst/nst/jobs/jobstest"
)

// A job is seen by whose it is and by an admin; to others it is not there, whatever they ask.
func TestJobsAreTheirOwners(t *testing.T) {
	s := serve(t, false, jobs.Config{}, httpapi.Config{Tokens: []httpapi.Token{
		{Owner: jobs.Owner{Name: "ann", Waiting: 3}, SHA256: sha256.Sum256([]byte("the token of ann"))},
		{Owner: jobs.Owner{Name: "bob"}, Secret: "the token of bob"},
		{Owner: jobs.Owner{Name: "carol"}, Secret: "the token of carol", Admin: true},
		{Secret: "a token without a name"},
	}})
	ask := func(method, path, who string) (int, string) {
		t.Helper()
		r, err := http.NewRequest(method, s.url+path, nil)
		require.NoError(t, err)
		r.Header.Set("Authorization", "Bearer "+who)
		status, _, body := s.do(r)
		return status, string(body)
	}
	const ann, bob, carol, nameless = "the token of ann", "the token of bob", "the token of carol",
		"a token without a name"
	content, style := jobstest.Content(t), jobstest.Style(t)
	submitAs := func(who string) (int, string, http.Header) {
		t.Helper()
		status, header, body := s.post(map[string]string{"Authorization": "Bearer " + who}, "options",
			`{"size": 32, "iterations": 2}`, "content", content, "style", style)
		var j struct{ ID, Owner string }
		require.NoError(t, json.Unmarshal(body, &j))
		if status == 201 && who == ann {
			assert.Equal(t, "ann", j.Owner)
		}
		return status, j.ID, header
	}
	var ids []string
	for range 3 {
		status, id, _ := submitAs(ann)
		require.Equal(t, 201, status)
		ids = append(ids, id)
	}
	status, _, header := submitAs(ann)
	assert.Equal(t, 429, status, "three of hers wait")
	assert.NotEmpty(t, header.Get("Retry-After"))
	status, _, _ = submitAs(bob)
	assert.Equal(t, 201, status, "which is no matter to others")

	for _, call := range []struct{ method, path string }{{"GET", ""}, {"DELETE", ""}, {"GET", "/events"},
		{"GET", "/content"}, {"GET", "/preview"}, {"GET", "/result"}} {
		status, text := ask(call.method, "/v1/jobs/"+ids[0]+call.path, bob)
		assert.Equal(t, 404, status, "%s %s", call.method, call.path)
		assert.NotContains(t, text, "ann")
	}
	for who, total := range map[string]int{ann: 3, bob: 1, carol: 4, nameless: 4} {
		status, text := ask("GET", "/v1/jobs", who)
		require.Equal(t, 200, status)
		var list struct{ Total int }
		require.NoError(t, json.Unmarshal([]byte(text), &list))
		assert.Equal(t, total, list.Total, who)
	}
	status, text := ask("GET", "/v1/session", carol)
	assert.Equal(t, 200, status)
	assert.JSONEq(t, `{"name": "carol", "admin": true}`, text)
	_, text = ask("GET", "/v1/session", bob)
	assert.JSONEq(t, `{"name": "bob", "admin": false}`, text)

	// Page by page, all of hers once, whatever comes meanwhile.
	var seen []string
	for next := "?limit=2"; next != ""; {
		_, text := ask("GET", "/v1/jobs"+next, ann)
		var list struct {
			Jobs  []struct{ ID string }
			Total int
			Next  string
		}
		require.NoError(t, json.Unmarshal([]byte(text), &list))
		assert.Equal(t, 3, list.Total)
		for _, j := range list.Jobs {
			seen = append(seen, j.ID)
		}
		if next = ""; list.Next != "" {
			next = "?limit=2&cursor=" + list.Next
		}
	}
	assert.Equal(t, []string{ids[2], ids[1], ids[0]}, seen)
	status, _ = ask("DELETE", "/v1/jobs/"+ids[0], carol)
	assert.Equal(t, 202, status)
	_, text = ask("GET", "/v1/jobs?state=cancelled", ann)
	assert.Contains(t, text, ids[0])
	assert.Contains(t, text, `"total":1`)
	_, text = ask("GET", "/v1/jobs?owner=bob", carol)
	assert.Contains(t, text, `"total":1`)
	for _, query := range []string{"state=lost", "cursor=x", "cursor=-1-a", "limit=0"} {
		status, text := ask("GET", "/v1/jobs?"+query, ann)
		assert.Equal(t, 400, status, query)
		assert.Contains(t, text, strings.Split(query, "=")[0])
	}
}

// Nor are the pictures of a finished job another's, in whatever way they are asked for.
func TestPicturesAreTheirOwners(t *testing.T) {
	s := serve(t, true, jobs.Config{}, httpapi.Config{Tokens: []httpapi.Token{
		{Owner: jobs.Owner{Name: "ann"}, Secret: "the token of ann"},
		{Owner: jobs.Owner{Name: "bob"}, Secret: "the token of bob"},
	}})
	id := s.job(`{"size": 32, "iterations": 2}`) // ann's
	require.Equal(t, jobs.Done, s.until(id, func(j jobs.Job) bool { return j.State.Finished() }).State)
	for _, path := range []string{"", "/content", "/style-1", "/preview", "/result", "/result?format=webp", "/events"} {
		for _, method := range []string{"GET", "HEAD"} {
			for who, want := range map[string]int{"ann": 200, "bob": 404} {
				for _, header := range []string{"", "Range", "If-None-Match"} {
					if header != "" && who == "ann" {
						continue
					}
					r, err := http.NewRequest(method, s.url+"/v1/jobs/"+id+path, nil)
					require.NoError(t, err)
					r.Header.Set("Authorization", "Bearer the token of "+who)
					if header != "" {
						r.Header.Set(header, map[string]string{"Range": "bytes=0-9", "If-None-Match": "*"}[header])
					}
					answer, err := http.DefaultClient.Do(r)
					require.NoError(t, err)
					answer.Body.Close()
					assert.Equal(t, want, answer.StatusCode, "%s %s of %s, %s", method, path, who, header)
				}
			}
		}
	}
}
