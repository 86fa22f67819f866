package main

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/google/uuid"
	openai "github.com/sashabaranov/go-openai"
	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"

	"github.com/moaserve/moaserve/client"
)

// chatCmd is a terminal chat with a server, over the client package.
type chatCmd struct {
	URL         string   `help:"Address of the server." default:"http://127.0.0.1:8080"`
	APIKey      string   `help:"API key, when the server wants one."`
	Model       string   `help:"Model name; by default the server's first." env:"MOASERVE_CHAT_MODEL"`
	Plan        string   `help:"Plan to run under; by default the model's." env:"MOASERVE_CHAT_PLAN"`
	File        []string `help:"Text files to attach before the first question." type:"existingfile" short:"f"`
	System      string   `help:"System message."`
	MaxTokens   int      `help:"Longest answer, in tokens; 0 means to the end of the context." default:"1024"`
	Temperature float32  `help:"Sampling temperature." default:"0.7"`
	Question    []string `arg:"" optional:"" help:"Ask this one question and exit; without it, questions are read from the terminal."`
}

// interruptedStatus is what shells report of a program that SIGINT ended.
const interruptedStatus = 130

// maxAttachment bounds a file: no context holds more.
const maxAttachment = 32 << 20

// Run holds the conversation.
func (c *chatCmd) Run(ctx context.Context) error {
	c.URL = withScheme(c.URL)
	cl := client.New(c.URL, c.APIKey)
	if c.Model == "" {
		models, err := cl.ListModels(ctx)
		if err != nil {
			return fmt.Errorf("asking %s for its models (is the server running?): %w", c.URL, err)
		}
		if len(models.Models) == 0 {
			return fmt.Errorf("%s serves no model", c.URL)
		}
		c.Model = models.Models[0].ID
	}
	talk := &conversation{chatCmd: c, client: cl, session: uuid.NewString()}
	talk.begin()
	for _, path := range c.File {
		if err := talk.attach(path); err != nil {
			return err
		}
	}
	if len(c.Question) > 0 {
		if info, err := os.Stdin.Stat(); err == nil && info.Mode()&os.ModeCharDevice == 0 { // something may be piped in
			if err := talk.attachFrom(os.Stdin, "standard input"); err != nil {
				return err
			}
		}
		return talk.ask(ctx, strings.Join(c.Question, " "))
	}
	return talk.loop(ctx, os.Stdin)
}

type conversation struct {
	*chatCmd
	client   *client.Client
	session  string
	messages []openai.ChatCompletionMessage
	attached string // files that go in front of the next question
}

// begin starts anew, with nothing but the system message.
func (t *conversation) begin() {
	t.messages, t.attached = nil, ""
	if t.System != "" {
		t.add(openai.ChatMessageRoleSystem, t.System)
	}
}

func (t *conversation) add(role, content string) {
	t.messages = append(t.messages, openai.ChatCompletionMessage{Role: role, Content: content})
}

// attach puts a file in front of the next question. It goes to the beginning of
// the conversation's turn, so that later questions extend the same prefix.
func (t *conversation) attach(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	return t.attachFrom(f, filepath.Base(path))
}

// attachFrom is attach for a text that has no path. An empty one is none.
func (t *conversation) attachFrom(r io.Reader, name string) error {
	text, err := io.ReadAll(io.LimitReader(r, maxAttachment+1))
	switch {
	case err != nil:
		return fmt.Errorf("reading %s: %w", name, err)
	case len(text) > maxAttachment:
		return fmt.Errorf("%s is too long; at most %d bytes can be attached", name, maxAttachment)
	case len(text) > 0:
		t.attached += fmt.Sprintf("Document %s:\n\n%s\n\n", name, strings.ToValidUTF8(string(text), "\uFFFD"))
	}
	return nil
}

const chatHelp = "Commands: /file PATH attaches a text file, /clear starts anew, /quit ends."

func (t *conversation) loop(ctx context.Context, in io.Reader) error {
	interactive := term.IsTerminal(int(os.Stdin.Fd()))
	var failed error          // the latest, which tells a script that something did
	var prompting atomic.Bool // an interrupt at the prompt ends the chat, one in an answer only that
	ask := t.ask
	if interactive {
		fmt.Printf("%s at %s. %s\n", t.Model, t.URL, chatHelp)
		defer context.AfterFunc(ctx, func() {
			if prompting.Load() {
				os.Exit(interruptedStatus)
			}
		})()
		ask = t.askInterruptibly
		ctx = context.WithoutCancel(ctx)
	}
	lines := bufio.NewScanner(in)
	lines.Buffer(nil, maxAttachment)
	for {
		if interactive {
			fmt.Print("> ")
		}
		prompting.Store(true)
		if ctx.Err() != nil || !lines.Scan() {
			return cmp.Or(lines.Err(), failed)
		}
		prompting.Store(false)
		line := strings.TrimSpace(lines.Text())
		command, rest, _ := strings.Cut(line, " ")
		switch {
		case line == "":
		case command == "/quit" || command == "/exit":
			return nil
		case command == "/clear":
			t.begin()
		case command == "/file":
			if err := t.attach(strings.TrimSpace(rest)); err != nil {
				fmt.Fprintln(os.Stderr, err)
			}
		case strings.HasPrefix(command, "/"):
			fmt.Println(chatHelp)
		default:
			if err := ask(ctx, line); err != nil {
				fmt.Fprintln(os.Stderr, "error:", err)
				if !interactive {
					failed = err
				}
			}
		}
	}
}

// askInterruptibly is ask, but an interrupt ends the answer and nothing else.
func (t *conversation) askInterruptibly(ctx context.Context, question string) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt)
	defer stop()
	err := t.ask(ctx, question)
	if ctx.Err() != nil {
		fmt.Println("\n[stopped]")
		return nil
	}
	return err
}

// ask sends a question and prints the answer as it comes. A question that fails
// is taken back, so that it can be asked again.
func (t *conversation) ask(ctx context.Context, question string) error {
	turns := len(t.messages)
	t.add(openai.ChatMessageRoleUser, t.attached+question)
	answer, err := t.stream(ctx)
	if err != nil {
		t.messages = t.messages[:turns]
		return err
	}
	t.attached = ""
	t.add(openai.ChatMessageRoleAssistant, answer)
	return nil
}

func (t *conversation) stream(ctx context.Context) (string, error) {
	start := time.Now()
	s, err := t.client.Stream(ctx, client.Request{
		ChatCompletionRequest: openai.ChatCompletionRequest{
			Model: t.Model, Messages: t.messages, MaxCompletionTokens: t.MaxTokens, Temperature: max(t.Temperature, math.SmallestNonzeroFloat32), // a 0 would not be sent
			StreamOptions: &openai.StreamOptions{IncludeUsage: true},
		},
		Plan: t.Plan, Session: t.session, Progress: true,
	})
	if err != nil {
		return "", err
	}
	defer func() { _ = s.Close() }()

	terminal := term.IsTerminal(int(os.Stderr.Fd()))
	var bar *progressbar.ProgressBar
	var answer strings.Builder
	var first time.Time
	for {
		chunk, err := s.Recv()
		if errors.Is(err, io.EOF) {
			fmt.Println()
			return answer.String(), nil
		}
		if err != nil {
			return "", err
		}
		if p := chunk.Progress; p != nil && terminal {
			if bar == nil {
				bar = progressbar.NewOptions(p.Total-p.Cached, progressbar.OptionSetWriter(os.Stderr),
					progressbar.OptionSetDescription("reading"), progressbar.OptionClearOnFinish(), progressbar.OptionShowIts())
			}
			_ = bar.Set(p.Processed - p.Cached)
		}
		if text := chunk.Text(); text != "" {
			if first.IsZero() {
				first = time.Now()
				if bar != nil {
					_ = bar.Finish()
				}
			}
			answer.WriteString(text)
			fmt.Print(text)
		}
		if u := chunk.Usage; u != nil && !first.IsZero() && terminal {
			fmt.Fprintf(os.Stderr, "\n[%d + %d tokens, first after %.2f s, %.1f tok/s]", u.PromptTokens, u.CompletionTokens,
				first.Sub(start).Seconds(), float64(u.CompletionTokens)/max(time.Since(first).Seconds(), 1e-3))
		}
	}
}
