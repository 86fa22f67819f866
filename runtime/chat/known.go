package chat

import "strings"

// Templates for models that come without one. Content may be a string or an
// array of text parts.
const (
	// ChatML is the format of most models without a tradition of their own. It is
	// the default.
	ChatML = textOf + `
{%- for message in messages -%}
<|im_start|>{{ message.role }}
{{ text_of(message.content) }}<|im_end|>
{{ '' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
<|im_start|>assistant
{{ '' }}
{%- endif -%}
`

	// Llama2 is the format of Llama 2 Chat. The system message goes into the
	// first turn of the user.
	Llama2 = textOf + `
{%- set ns = namespace(system='') -%}
{%- for message in messages -%}
    {%- set text = text_of(message.content) | trim -%}
    {%- if message.role == 'system' -%}
        {%- set ns.system = '<<SYS>>\n' + text + '\n<</SYS>>\n\n' -%}
    {%- elif message.role == 'user' -%}
{{ bos_token }}[INST] {{ ns.system }}{{ text }} [/INST]
        {%- set ns.system = '' -%}
    {%- else -%}
{{ ' ' + text + ' ' }}{{ eos_token }}
    {%- endif -%}
{%- endfor -%}
`

	// Vicuna is the format of Vicuna 1.1 and later.
	Vicuna = textOf + `
{%- if messages and messages[0].role == 'system' -%}
{{ bos_token }}{{ text_of(messages[0].content) | trim }}
    {%- set messages = messages[1:] -%}
{%- else -%}
{{ bos_token }}A chat between a curious user and an artificial intelligence assistant. The assistant gives helpful, detailed, and polite answers to the user's questions.
{%- endif -%}
{%- for message in messages -%}
    {%- if message.role == 'user' -%}
{{ ' USER: ' + text_of(message.content) | trim }}
    {%- else -%}
{{ ' ASSISTANT: ' + text_of(message.content) | trim }}{{ eos_token }}
    {%- endif -%}
{%- endfor -%}
{%- if add_generation_prompt -%}
{{ ' ASSISTANT:' }}
{%- endif -%}
`
)

// textOf defines the macro text_of, which joins the text parts of a content.
const textOf = `{%- macro text_of(content) -%}
    {%- if content is string -%}
{{ content }}
    {%- elif content -%}
        {%- for part in content if part.type == 'text' -%}
{{ part.text }}
        {%- endfor -%}
    {%- endif -%}
{%- endmacro -%}
`

// Known returns the template of a family of models by name, case and separators
// aside: chatml, llama-2 or vicuna.
func Known(name string) (source string, ok bool) {
	switch strings.NewReplacer("-", "", "_", "", ".", "", " ", "").Replace(strings.ToLower(name)) {
	case "chatml":
		return ChatML, true
	case "llama2":
		return Llama2, true
	case "vicuna":
		return Vicuna, true
	}
	return "", false
}
