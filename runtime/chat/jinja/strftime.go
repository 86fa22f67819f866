package jinja

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Strftime formats a time by the directives of C's strftime, in the C locale,
// as Python on Linux does: also with the flags - (no padding), _ (blanks) and 0.
// Unknown directives stay as they are.
func Strftime(t time.Time, format string) string {
	var b strings.Builder
	for i := 0; i < len(format); i++ {
		if format[i] != '%' {
			b.WriteByte(format[i])
			continue
		}
		start := i
		i++
		flag := byte(0)
		if i < len(format) && strings.IndexByte("-_0^", format[i]) >= 0 {
			flag = format[i]
			i++
		}
		if i >= len(format) {
			b.WriteString(format[start:])
			break
		}
		s, ok := directive(t, format[i], flag)
		if !ok {
			s = format[start : i+1]
		}
		b.WriteString(s)
	}
	return b.String()
}

func directive(t time.Time, c, flag byte) (string, bool) {
	number := func(n, width int, pad byte) (string, bool) {
		s := strconv.Itoa(n)
		switch flag {
		case '-':
			return s, true
		case '_':
			pad = ' '
		case '0':
			pad = '0'
		}
		return strings.Repeat(string(pad), max(width-len(s), 0)) + s, true
	}
	word := func(s string) (string, bool) {
		if flag == '^' {
			s = strings.ToUpper(s)
		}
		return s, true
	}
	hour12 := (t.Hour()+11)%12 + 1
	isoYear, isoWeek := t.ISOWeek()
	switch c {
	case 'Y':
		return number(t.Year(), 1, '0')
	case 'y':
		return number(t.Year()%100, 2, '0')
	case 'C':
		return number(t.Year()/100, 2, '0')
	case 'm':
		return number(int(t.Month()), 2, '0')
	case 'd':
		return number(t.Day(), 2, '0')
	case 'e':
		return number(t.Day(), 2, ' ')
	case 'H':
		return number(t.Hour(), 2, '0')
	case 'I':
		return number(hour12, 2, '0')
	case 'k':
		return number(t.Hour(), 2, ' ')
	case 'l':
		return number(hour12, 2, ' ')
	case 'M':
		return number(t.Minute(), 2, '0')
	case 'S':
		return number(t.Second(), 2, '0')
	case 'f':
		return fmt.Sprintf("%06d", t.Nanosecond()/1000), true
	case 'j':
		return number(t.YearDay(), 3, '0')
	case 'U': // weeks that begin on Sunday
		return number((t.YearDay()+6-int(t.Weekday()))/7, 2, '0')
	case 'W': // weeks that begin on Monday
		return number((t.YearDay()+6-(int(t.Weekday())+6)%7)/7, 2, '0')
	case 'V':
		return number(isoWeek, 2, '0')
	case 'G':
		return number(isoYear, 4, '0')
	case 'g':
		return number(isoYear%100, 2, '0')
	case 'w':
		return number(int(t.Weekday()), 1, '0')
	case 'u':
		return number((int(t.Weekday())+6)%7+1, 1, '0')
	case 's':
		return strconv.FormatInt(t.Unix(), 10), true
	case 'n':
		return "\n", true
	case 't':
		return "\t", true
	case '%':
		return "%", true
	}
	layouts := map[byte]string{
		'A': "Monday", 'a': "Mon", 'B': "January", 'b': "Jan", 'h': "Jan", 'p': "PM", 'P': "pm",
		'D': "01/02/06", 'x': "01/02/06", 'F': "2006-01-02", 'T': "15:04:05", 'X': "15:04:05", 'R': "15:04",
		'r': "03:04:05 PM", 'c': "Mon Jan _2 15:04:05 2006", 'z': "-0700", 'Z': "MST",
	}
	if layout, ok := layouts[c]; ok {
		return word(t.Format(layout))
	}
	return "", false
}
