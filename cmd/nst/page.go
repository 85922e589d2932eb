package main

import (
	"path/filepath"

	"github.com/seed9bb5c928/nst/nst"
	"github.com/seed9bb5c928/nst/nst/picture"
	"github.com/seed9bb5c928/nst/nst/report"
)

// page is the --report of a run; a nil page does nothing.
type page struct {
	path string
	*report.Report
}

func newPage(path, contentName string, styleNames []string, content *picture.Picture, styles []*picture.Picture) *page {
	if path == "" {
		return nil
	}
	r := report.New()
	if contentName != "" { // a texture has none
		r.AddInput("Content: "+filepath.Base(contentName), content)
		r.SetContent(content)
	}
	for i, s := range styles {
		r.AddInput("Style: "+filepath.Base(styleNames[i]), s)
	}
	return &page{path, r}
}

func (p *page) add(n nst.Progress) {
	if p != nil {
		p.Add(n)
	}
}

func (p *page) write(s summary, settings string, result *nst.Result) error {
	if p == nil {
		return nil
	}
	html, err := p.HTML(s.text(), settings, result)
	if err != nil {
		return err
	}
	return picture.WriteFile(p.path, html)
}
