package engine_test

import (
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/moaserve/moaserve/runtime/engine"
	"github.com/moaserve/moaserve/runtime/plan"
)

func TestSessionSaysWhatItsRequestsLeft(t *testing.T) {
	e := free(t, engine.Options{Pages: 1000})
	text := prompt(315, 1)
	got, _ := ask(t, e, engine.Request{Prompt: text, Session: "s", Tenant: "a"})
	ask(t, e, engine.Request{Prompt: slices.Concat(text, got, prompt(20, 2)), Session: "s", Tenant: "a"})
	ask(t, e, engine.Request{Prompt: text, Session: "s", Tenant: "b"})

	pages := 0 // of the 5 blocks, those that a query of the sixth sees
	for h, l := 0, mixed(plan.SpanPosition).Bind(0); h < l.Heads(); h++ {
		pages += 5 - l.Start(h, 5)
		if l.Start(h, 5) > 0 {
			pages++ // the sink
		}
	}
	sessions := e.Sessions("a")
	if len(sessions) != 1 {
		t.Fatalf("tenant a has the sessions %+v, want one", sessions)
	}
	x := sessions[0]
	if x.Created.IsZero() || x.Used.Before(x.Created) {
		t.Errorf("created %v, used %v", x.Created, x.Used)
	}
	x.Created, x.Used = time.Time{}, time.Time{}
	want := engine.SessionInfo{ID: "s", Plan: "mixed", Requests: 2, PromptTokens: 315 + 343, CachedTokens: 320, Tokens: 320, Pages: pages}
	if x != want {
		t.Errorf("the session is %+v, want %+v", x, want)
	}
	if n := e.Stats().Sessions; n != 2 {
		t.Errorf("%d sessions, want 2: tenants have their own", n)
	}
}

func TestPrefixOfASessionOutlivesOthers(t *testing.T) {
	// Room for three texts of 300 tokens (5 blocks in each of 4 heads).
	e := free(t, engine.Options{Pages: 60})
	dense := plan.NewDense(shape)
	ask(t, e, engine.Request{Prompt: prompt(300, 1), Plan: dense, Session: "s"})
	for seed := range uint64(9) {
		ask(t, e, engine.Request{Prompt: prompt(300, seed+2), Plan: dense})
	}
	if s := e.Stats(); s.PrefixEvictions == 0 || s.PinnedPrefixes != 1 {
		t.Errorf("%+v", s)
	}
	if _, cached := ask(t, e, engine.Request{Prompt: prompt(300, 1), Plan: dense, Session: "s"}); cached != 256 {
		t.Errorf("%d tokens of the session's text were cached, want 256", cached)
	}
	// A request that needs all pages gets them.
	ask(t, e, engine.Request{Prompt: prompt(900, 50), Plan: dense})
	if s := e.Sessions(""); len(s) != 1 || s[0].Pages != 0 || s[0].Tokens != 0 {
		t.Errorf("the session whose prefix had to go is %+v", s)
	}
}

func TestEndedSessionGivesItsPrefixUp(t *testing.T) {
	e := free(t, engine.Options{Pages: 1000})
	ask(t, e, engine.Request{Prompt: prompt(100, 1), Session: "s", Tenant: "a"})
	if e.EndSession("b", "s") || e.EndSession("a", "t") {
		t.Error("a session was ended that does not exist")
	}
	if !e.EndSession("a", "s") || len(e.Sessions("a")) != 0 {
		t.Error("the session was not ended")
	}
	if _, cached := ask(t, e, engine.Request{Prompt: prompt(100, 1), Tenant: "a"}); cached != 0 {
		t.Errorf("%d tokens were kept of an ended session", cached)
	}
	if s := e.Stats(); s.PinnedPrefixes != 0 {
		t.Errorf("%+v", s)
	}
}

func TestSessionsAreForgotten(t *testing.T) {
	inRig(t, engine.Options{MaxSessions: 3, SessionIdle: time.Hour}, func(r *rig) {
		r.allowAll()
		for i := range 5 {
			drain(r.submit(engine.Request{Prompt: prompt(100, uint64(i)), MaxTokens: 1, Session: fmt.Sprint(i)}))
			time.Sleep(time.Minute)
		}
		names := func() (names []string) {
			synctest.Wait()
			for _, s := range r.Sessions("") {
				names = append(names, s.ID)
			}
			return names
		}
		if got := names(); !slices.Equal(got, []string{"4", "3", "2"}) {
			t.Errorf("sessions %v, want the latest three", got)
		}
		if n := r.Stats().PinnedPrefixes; n != 3 {
			t.Errorf("%d prefixes are pinned, want 3", n)
		}
		time.Sleep(58 * time.Minute)
		drain(r.submit(engine.Request{Prompt: prompt(10, 9), MaxTokens: 1})) // any work makes the engine look
		if got := names(); !slices.Equal(got, []string{"4"}) {
			t.Errorf("after an hour sessions %v, want the one that is not idle for an hour", got)
		}
	})
}

func TestTenantsSharePrefixesWhenTold(t *testing.T) {
	e := free(t, engine.Options{Pages: 1000, SharePrefixes: true})
	ask(t, e, engine.Request{Prompt: prompt(300, 1), Tenant: "a"})
	if _, cached := ask(t, e, engine.Request{Prompt: prompt(300, 1), Tenant: "b"}); cached != 256 {
		t.Errorf("%d tokens of another tenant's text were cached, want 256", cached)
	}
}

func TestEndedSessionLeavesWhatAnotherKeeps(t *testing.T) {
	e := free(t, engine.Options{Pages: 1000})
	for _, id := range []string{"s", "t"} {
		ask(t, e, engine.Request{Prompt: prompt(100, 1), Session: id})
	}
	e.EndSession("", "s")
	if _, cached := ask(t, e, engine.Request{Prompt: prompt(100, 1), Session: "t"}); cached != 64 {
		t.Errorf("%d tokens of the other session's text were cached, want 64", cached)
	}
	if s := e.Stats(); s.PinnedPrefixes != 1 {
		t.Errorf("%+v", s)
	}
}

func TestRequestOfAnEndedSessionIsNotTheNextOnes(t *testing.T) {
	inRig(t, engine.Options{}, func(r *rig) {
		old := r.submit(engine.Request{Prompt: prompt(100, 1), MaxTokens: 3, Session: "s"})
		r.EndSession("", "s")
		next := r.submit(engine.Request{Prompt: prompt(100, 2), MaxTokens: 30, Session: "s"})
		go drain(next)
		ended := make(chan struct{})
		go func() {
			drain(old)
			close(ended)
		}()
		for {
			select {
			case <-ended:
				if got := r.Sessions(""); len(got) != 1 || got[0].Running != 1 || got[0].Tokens != 0 {
					t.Errorf("the new session is %+v", got)
				}
				return
			default:
				r.step(1)
			}
		}
	})
}

func TestManySessionsOfATenantLeaveThoseOfOthers(t *testing.T) {
	inRig(t, engine.Options{MaxSessions: 3}, func(r *rig) {
		r.allowAll()
		ask := func(tenant, session string) {
			drain(r.submit(engine.Request{Prompt: prompt(100, 1), MaxTokens: 1, Tenant: tenant, Session: session}))
			time.Sleep(time.Second)
		}
		ask("quiet", "only")
		for i := range 20 {
			ask("busy", fmt.Sprint(i))
		}
		synctest.Wait()
		if got := r.Sessions("quiet"); len(got) != 1 || got[0].Pages == 0 {
			t.Errorf("the tenant with one session has %+v", got)
		}
		if got := r.Sessions("busy"); len(got) != 2 || got[0].ID != "19" || got[1].ID != "18" {
			t.Errorf("the tenant with twenty has %+v, want the latest two", got)
		}
	})
}
