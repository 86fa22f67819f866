package chat

import (
	"errors"
	"strings"
	"unicode"

	"github.com/moaserve/moaserve/runtime/chat/jinja"
)

// continueFinal cuts a rendered prompt after the text of the last message. A
// template may have stripped that text, so blanks around it do not count; those
// at its end are kept where the template kept them.
func continueFinal(prompt string, messages *jinja.List) (string, error) {
	text, err := finalText(messages)
	if err != nil {
		return "", err
	}
	start := strings.LastIndex(prompt, strings.TrimSpace(text))
	if start < 0 {
		return "", errors.New("the final message does not appear in the prompt, so it cannot be continued")
	}
	kept := strings.TrimLeftFunc(text, unicode.IsSpace)
	if !strings.HasPrefix(prompt[start:], kept) {
		kept = strings.TrimSpace(text)
	}
	return prompt[:start+len(kept)], nil
}

// finalText returns the content of the last message, or the last text among its
// parts.
func finalText(messages *jinja.List) (string, error) {
	missing := errors.New("the final message has no text to continue")
	if len(messages.Items) == 0 {
		return "", missing
	}
	m, ok := messages.Items[len(messages.Items)-1].(*jinja.Dict)
	if !ok {
		return "", missing
	}
	content, _ := m.Get("content")
	switch c := content.(type) {
	case string:
		return c, nil
	case *jinja.List:
		for i := len(c.Items) - 1; i >= 0; i-- {
			part, ok := c.Items[i].(*jinja.Dict)
			if !ok {
				continue
			}
			if text, ok := part.Get("text"); ok {
				if s, ok := text.(string); ok {
					return s, nil
				}
			}
		}
	}
	return "", missing
}
