package gateway

import (
	"os"
	"strings"
	"testing"
)

// The page for clients must not fall behind the code.
func TestTheDocumentationNamesEverythingAClientCanMeet(t *testing.T) {
	b, err := os.ReadFile("../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	page := string(b)
	want := func(what, name string) {
		if !strings.Contains(page, "`"+name+"`") {
			t.Errorf("docs/api.md does not name the %s %s", what, name)
		}
	}
	for _, k := range errorKinds {
		want("error code", k.code)
	}
	for _, f := range ignoredFields {
		want("ignored field", f)
	}
	for _, r := range refusedFields {
		want("refused field", r.field)
	}
	for _, r := range newServer(t, newFake(), Options{}).routes() {
		path := strings.Replace(r.path, "+", "{id}", 1)
		if !strings.Contains(page, r.method+" "+path+"`") {
			t.Errorf("docs/api.md does not name %s %s", r.method, path)
		}
	}
}
