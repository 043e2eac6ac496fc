"""Speech: adapt a recogniser to new accents, words and telephone lines, and see what it forgets."""
