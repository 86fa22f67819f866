package gateway

import (
	"encoding/json"
	"net/url"
	"time"
	"unicode/utf8"

	"github.com/gofiber/fiber/v2"
)

// kvState is the body of GET /moaserve/kv.
type kvState struct {
	PageTokens int `json:"page_tokens"` // positions a page holds
	Pages      struct {
		Total  int `json:"total"`
		Used   int `json:"used"`   // held by running sequences
		Cached int `json:"cached"` // held by kept prefixes alone
		Free   int `json:"free"`
	} `json:"pages"`
	Plans          []planState `json:"plans"`
	Prefixes       int         `json:"prefixes"`
	PinnedPrefixes int         `json:"pinned_prefixes"`
	Evictions      uint64      `json:"evictions"`
	Disk           diskState   `json:"disk"`
	Sessions       int         `json:"sessions"`
	Running        int         `json:"running"`
	Waiting        int         `json:"waiting"`
}

// diskState counts the prefixes that are kept in files.
type diskState struct {
	Files   int    `json:"files"`
	Bytes   int64  `json:"bytes"`
	Written uint64 `json:"written"`
	Loaded  uint64 `json:"loaded"`
	Dropped uint64 `json:"dropped"` // not written: no room, or the disk failed
	Damaged uint64 `json:"damaged"`
}

// planState says what one plan holds. A page counts for each that holds it.
type planState struct {
	Plan      string  `json:"plan"`
	Sequences holding `json:"sequences"`
	Prefixes  holding `json:"prefixes"`
}

type holding struct {
	Count  int `json:"count"`
	Tokens int `json:"tokens"`
	Pages  int `json:"pages"`
}

// kv answers GET /moaserve/kv: where the pages of the KV cache are.
func (s *Server) kv(c *fiber.Ctx) error {
	plans, err := s.engine.PlanPages(c.Context())
	if err != nil {
		return shutdownError()
	}
	e := s.engine.Stats()
	state := kvState{
		PageTokens: e.PageTokens, Plans: []planState{}, Prefixes: e.Prefixes, PinnedPrefixes: e.PinnedPrefixes, Evictions: e.PrefixEvictions,
		Sessions: e.Sessions, Running: e.Running, Waiting: e.Waiting,
	}
	d := e.Disk
	state.Disk = diskState{d.Files, d.Bytes, d.Written, d.Loaded, d.Dropped + d.Failed, d.Damaged}
	state.Pages.Total, state.Pages.Used, state.Pages.Cached = e.Pages, e.UsedPages, e.CachedPages
	state.Pages.Free = e.Pages - e.UsedPages - e.CachedPages
	for _, p := range plans {
		state.Plans = append(state.Plans, planState{p.Plan, holding{p.Sequences, p.SequenceTokens, p.SequencePages}, holding{p.Prefixes, p.PrefixTokens, p.PrefixPages}})
	}
	return answerJSON(c, state)
}

// sessionState is an element of the body of GET /moaserve/sessions.
type sessionState struct {
	ID           string    `json:"id"`
	Plan         string    `json:"plan"`
	Created      time.Time `json:"created"`
	Used         time.Time `json:"used"`
	Requests     uint64    `json:"requests"`
	Running      int       `json:"running"`
	PromptTokens uint64    `json:"prompt_tokens"`
	CachedTokens uint64    `json:"cached_tokens"`
	Kept         holding   `json:"kept"` // the prefix that the next request may continue
}

// listSessions answers GET /moaserve/sessions: those of the key's tenant.
func (s *Server) listSessions(c *fiber.Ctx) error {
	list := struct {
		Object string         `json:"object"`
		Data   []sessionState `json:"data"`
	}{"list", []sessionState{}}
	for _, x := range s.engine.Sessions(tenantOf(c)) {
		state := sessionState{
			ID: x.ID, Plan: x.Plan, Created: x.Created.UTC(), Used: x.Used.UTC(), Requests: x.Requests, Running: x.Running,
			PromptTokens: x.PromptTokens, CachedTokens: x.CachedTokens,
		}
		if x.Pages > 0 {
			state.Kept = holding{1, x.Tokens, x.Pages}
		}
		list.Data = append(list.Data, state)
	}
	return answerJSON(c, list)
}

// endSession answers DELETE /moaserve/sessions/{id}: what the session kept is
// forgotten.
func (s *Server) endSession(c *fiber.Ctx) error {
	id, err := url.PathUnescape(c.Params("+"))
	if err != nil || !s.engine.EndSession(tenantOf(c), id) {
		return newError(kindSessionNotFound)
	}
	return answerJSON(c, struct {
		ID      string `json:"id"`
		Object  string `json:"object"`
		Deleted bool   `json:"deleted"`
	}{id, "session", true})
}

// tenantOf returns the tenant of the request's key.
func tenantOf(c *fiber.Ctx) string {
	tenant, _ := c.Context().UserValue(keyTenant).(string)
	return tenant
}

func answerJSON(c *fiber.Ctx, body any) error {
	b, err := json.Marshal(body)
	if err != nil {
		return err
	}
	writeJSON(c.Context(), b)
	return nil
}

const (
	headerSession = "X-Session-ID"
	// maxSessionName is room for any identifier; the table of sessions keeps it.
	maxSessionName = 256
	whatSession    = "1 to 256 bytes of text without control characters"
)

// sessionName returns the session that a request names: in its header or, without
// one, in its body.
func sessionName(c *fiber.Ctx, body string) (string, *apiError) {
	name := string(c.Request().Header.Peek(headerSession))
	if name == "" {
		return body, nil
	}
	if !validSession(name) {
		return "", errorf(kindInvalidValue, headerSession, "The header '%s' must be %s.", headerSession, whatSession)
	}
	return name, nil
}

// validSession reports whether a name is fit for tables and logs.
func validSession(name string) bool {
	if name == "" || len(name) > maxSessionName || !utf8.ValidString(name) {
		return false
	}
	for _, r := range name {
		if r < ' ' || r >= 0x7f && r < 0xa0 {
			return false
		}
	}
	return true
}
