"""What people say that is about nothing in their past, two hundred lines of it."""

from __future__ import annotations

_LINES = """\
hi
Hello there!
good morning
How are you?
How are you doing today?
Thanks a lot!
thank you so much, that helps
ok great
Sounds good to me
lol that's funny
Tell me a joke
What's the weather like?
What time is it?
What is 17 times 23?
Write a haiku about autumn
Good night, talk to you tomorrow
Can you explain how photosynthesis works?
What is the capital of Australia?
Translate "good evening" into French
I see, go on
Yes please
no, not really
Hmm, let me think about it
That makes sense
What can you do?
Who made you?
Are you a robot?
Please repeat that
Could you say that more briefly?
Never mind
You're right
I agree
Nice to meet you
See you later
Have a nice weekend!
What do you think?
Why is the sky blue?
Sort these numbers: 5, 3, 9
Write a Python function that reverses a string
How do I boil an egg?
Give me three synonyms for happy
That was quick!
Wow, amazing
haha
Sorry, I was away for a minute
Let's start over
Is that true?
Really?
Convert 5 miles to kilometres
Summarise the plot of Hamlet in one sentence
Hey, what's up?
Hi, I hope you are having a lovely day
It's raining here again
I'm bored
I'm so tired today
Can you recommend a good film?
Tell me something interesting
What's your favourite colour?
Do you like music?
Do you dream?
How old are you?
Where are you from?
Are you there?
Can you hear me?
Just checking in
Long day, finally home
Nothing much, you?
Same here
That's a good point
I didn't expect that
You are very kind
You made me laugh
I'll try that, cheers
Much appreciated
Perfect, that is exactly what I needed
Could you write a short poem about the sea?
What's the difference between a virus and a bacterium?
How far is the moon?
Who wrote Pride and Prejudice?
How many days are in a leap year?
What does "serendipity" mean?
Can you help me write an email to a customer?
How do I center a div in CSS?
Explain recursion in simple words
What's a good recipe for pancakes?
Give me a riddle
Let's play a game
Count to ten in Spanish
Happy new year!
Merry Christmas!
Congratulations!
Happy birthday to me
Talk soon
Catch you later
One moment please
I have to go now
Let me know when you're ready
Which is larger, 0.9 or 0.11?
Proofread this sentence: I has two cat
What is the boiling point of water?
"""
# Each of them as it stands, and as people begin it.
_BEGINNINGS = ("Okay, ", "Well, ", "Hey, ", "So, ")

SMALL_TALK = [
    *_LINES.splitlines(),
    *(_BEGINNINGS[number % len(_BEGINNINGS)] + line for number, line in enumerate(_LINES.splitlines())),
]
